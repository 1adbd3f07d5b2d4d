"""Memory of moments by class: an EDMD of five layers of 784 features, ten classes.

Beside what they took when every class kept all pairs, as by formula; and the downdate they are kept
for, beside moments of the rows that are left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from benchmarks.costs.measuring import megabytes, peak_bytes, verdict
from torchkoopman.fitting.edmd import EDMDFitter
from torchkoopman.koopman.feature_maps import RandomFeatures
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs
from torchkoopman.observe.trajectory import Trajectory

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = "benchmarks.costs.class_moments"
LAYERS, CLASSES, GOAL = 5, 10, 0.5e9
FULL = {"features": 784, "random": 500, "rows": 3_000}
SMALL = {"features": 32, "random": 50, "rows": 1_000}


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """The one job there is."""
    return {"ten classes": lambda: measure(SMALL if quick else FULL)}


def fitted(size: dict[str, int]) -> EDMDFitter:
    """An EDMD that has seen all classes."""
    fitter = EDMDFitter(RandomFeatures(size["random"]), calibration=size["rows"] // 2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(size["rows"] // 500):
        states = [torch.randn(500, size["features"], generator=generator)]
        for _ in range(LAYERS - 1):
            states.append(states[-1] + 0.3 * torch.tanh(states[-1].roll(1, 1)))
        fitter.update(Trajectory.of(*states, labels=torch.arange(500) % CLASSES))
    return fitter


def fit(size: dict[str, int]) -> Callable[[], object]:
    """What is to be measured: stream, and make the surrogate, which keeps classes of its own."""
    fitted(SMALL).surrogate  # noqa: B018, what it loads stays loaded
    return lambda: (fitter := fitted(size), fitter.surrogate)


def measure(size: dict[str, int]) -> dict[str, Any]:
    """Bytes of the moments, of all pairs of each class, and at the peak; the downdate's error."""
    fitter = fitted(size)
    moments = fitter._moments
    latent = fitter.surrogate.latent
    pairs = len(layer_pairs([str(k) for k in range(LAYERS)], "chain"))
    left = Moments(moments.class_pairs)
    for label in moments.classes[1:]:
        left.merge(moments.by_class[label])
    downdate, first, last = moments.without([moments.classes[0]]), "0", str(LAYERS - 1)
    errors = [
        ((downdate.cov(*pair) - left.cov(*pair)).norm() / left.cov(*pair).norm()).item()
        for pair in ((first, first), (first, last))
    ]
    return {
        **size, "latent": latent, "bytes": moments.nbytes, "error": max(errors),
        "all pairs": 8 * latent**2 * pairs * len(moments.classes),
        "peak": peak_bytes(MODULE, "fit", size=size),
    }  # fmt: skip


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: what they take, and took."""
    lines = ["| moments of ten classes, five layers | bytes | goal |", "|---|---|---|"]
    for result in results.values():
        met = verdict(result["bytes"] <= GOAL, result["features"] == FULL["features"])
        what = f"{result['latent']} observables"
        lines.append(
            f"| {what}, kept while streaming | {megabytes(result['bytes'])} | ≤ 500 MB: {met} |"
        )
        lines.append(
            f"| all pairs of every class, by formula | {megabytes(result['all pairs'])} | |"
        )
        lines.append(f"| peak of the fit and its surrogate | {megabytes(result['peak'])} | |")
        lines.append(f"| the downdate, relative error | {result['error']:.0e} | |")
    return "\n".join(lines)
