"""What a topology shows: Betti curves of network and surrogate, and components at one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torchkoopman_panels import Series

from torchkoopman.showing.shown import Shown, listed, span_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from torchkoopman.topology.betti import BettiCurve
    from torchkoopman.topology.report import Topology


def topology_shown(topology: Topology, tag: str) -> Shown:
    """Its series and scalars, see :func:`torchkoopman.showing.series_of`."""
    each = topology.layers
    layers = [one.layer for one in each]
    about = {"layers": layers, "times": [one.time for one in each]}
    both = (topology.network, topology.surrogate)
    scalars: dict[str, float] = {}
    for name, counts in zip(("network", "surrogate"), both, strict=True):
        for layer, count in zip(layers, counts, strict=True):
            scalars[f"beta0/{name}/{layer}"] = float(count)
    series = []
    for dimension in each[0].curves:
        for one in each:
            scalars[f"beta{dimension}_l1/{one.layer}"] = one.relative(dimension)
        values = np.stack([np.stack([_rows(c) for c in one.curves[dimension]]) for one in each])
        told = {
            **about,
            "dimension": dimension,
            "rows": topology.rows if dimension == 0 else topology.landmarks,
            "unit": topology.unit,
        }
        series.append(Series(f"betti{dimension}", values, told))
    counted = np.array([[topology.epsilon] * 2, *zip(*both, strict=True)], dtype=float)
    series.append(Series("components", counted, about))
    return Shown(span_of(layers, tag), tuple(series), scalars)


def _rows(curve: BettiCurve) -> npt.NDArray[np.float64]:
    """Scale, value, low and high end of the band, ``(4, scales)``."""
    return np.array([listed(x) for x in (curve.scales, curve.values, curve.low, curve.high)])
