"""What a look at a flow shows: attractors by set of starts, and each attractor's rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torchkoopman_panels import Series

from torchkoopman.showing.shown import Shown

if TYPE_CHECKING:
    from torchkoopman.flows.looks import FlowLook

ATTRACTORS_SHOWN = 256
"""Of each look at most: those that most starts lead to."""


def look_shown(look: FlowLook, tag: str) -> Shown:
    """Its series and scalars, see :func:`torchkoopman.showing.series_of`."""
    counts = look.reached.sum(1)
    shares = [counts.double(), look.converged, look.diverged]
    by_start = torch.cat([torch.stack(shares, 1), look.chamfer], 1)
    stayed = look.moved[~look.moved.isnan()]
    moved = stayed.median().item() if len(stayed) else torch.nan
    changes = [float(len(each)) for each in (look.tracks, look.born, look.gone)]
    series = (
        Series("flow", by_start.numpy(), {"starts": list(look.names)}),
        Series("changes", np.array([*changes, moved])),
        Series("attractors", _columns(look)),
    )
    scalars = {"attractors": changes[0], "born": changes[1], "gone": changes[2]}
    if len(stayed):
        scalars["moved"] = moved
    if len(look.radii):
        scalars["largest_radius"] = look.radii.max().item()
        scalars["largest_norm"] = look.norms.max().item()
    for k, name in enumerate(look.names):
        scalars[f"attractors_from/{name}"] = float(counts[k])
        scalars[f"converged/{name}"] = look.converged[k].item()
        scalars[f"diverged/{name}"] = look.diverged[k].item()
        for other in range(k):
            if not look.chamfer[k, other].isnan():
                scalars[f"chamfer/{look.names[other]}-{name}"] = look.chamfer[k, other].item()
    return Shown(tag or "flow", series, scalars)


def _columns(look: FlowLook) -> np.ndarray:
    """As ``torchkoopman_panels.schema.ATTRACTOR_COLUMNS``."""
    starts = look.basins.sum(0).double()
    first = starts.argsort(descending=True, stable=True)[:ATTRACTORS_SHOWN]
    share = starts / starts.sum().clamp_min(1)
    columns = [look.tracks.double(), look.radii, look.norms, look.moved, share]
    found: np.ndarray = torch.stack(columns, 1)[first].numpy()
    return found
