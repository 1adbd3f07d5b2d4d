"""What paths show: samples through depth, and how much of each layer the planes hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torchkoopman_panels import Series

from torchkoopman.showing.shown import Shown, span_of

if TYPE_CHECKING:
    from torchkoopman.koopman.paths import Paths


def paths_shown(paths: Paths, tag: str) -> Shown:
    """Their series and scalars, see :func:`torchkoopman.showing.series_of`."""
    about = {
        "layers": list(paths.layers),
        "times": list(paths.times),
        "systems": list(paths.systems),
        "labels": None if paths.labels is None else paths.labels.tolist(),
        "forgotten": list(paths.forgotten),
    }
    values = torch.cat([paths.shares[None], paths.points]).numpy()
    shown = paths.shares[:, 0].sum(1).tolist()
    scalars = {
        f"variance_shown/{layer}": share for layer, share in zip(paths.layers, shown, strict=True)
    }
    for layer, r2 in zip(paths.layers[1:], paths.r2[1:, 1].tolist(), strict=True):
        if not math.isnan(r2):
            scalars[f"paths_r2/{layer}"] = r2
    return Shown(span_of(paths.layers, tag), (Series("trajectories", values, about),), scalars)
