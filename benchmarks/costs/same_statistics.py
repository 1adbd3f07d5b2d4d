"""Cost of a fit beside deeptime's streaming covariance, with the same statistics on both sides.

deeptime's ``Covariance`` streams float32 batches converted to float64 as ours does, the conversion
counted, and ends in the floor's rank-r solve. With three Gram matrices (the second one of the later
layer) it stands beside ``DMDFitter(residuals="moments")``, with two beside ``residuals=False``. The
default has no peer: it keeps rows besides, to judge the fit by. Ours are covariances, about the
means; deeptime's can be that, or Gram matrices about the origin, which are less work and less exact
far from it. Of many axes deeptime finds all, as ``numpy.linalg.eigh`` does; ours finds the leading
ones alone, which the peer is given too in a column of its own. Trajectories hold the batches as a
probe hands them over.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg

from benchmarks.costs.closed_form import BATCH, RIDGE, pairs
from benchmarks.costs.measuring import in_turn, megabytes, peak_bytes, verdict
from torchkoopman.fitting.dmd import DMDFitter
from torchkoopman.observe.trajectory import Trajectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from benchmarks.costs.closed_form import Pairs
    from torchkoopman.fitting.streams import Residuals

MODULE = "benchmarks.costs.same_statistics"
THREE, TWO = "deeptime, three Gram matrices", "deeptime, two"
SAME, PLAIN, FULL = 'residuals="moments"', "residuals=False", "the default, which keeps rows"
KEPT: dict[str, Residuals] = {SAME: "moments", PLAIN: False, FULL: True}
BESIDE = {SAME: THREE, PLAIN: TWO, FULL: THREE}
"""Ours → the peer with as many matrices, and for the default the nearest."""
MEANS, FEW = ", about the means", ", few axes"
GOALS = {SAME: {128: 1.05, 512: 0.9, 1024: 0.9}, PLAIN: dict.fromkeys((128, 512, 1024), 1.1)}
RANKS = {128: 16, 512: 64, 1024: 64}
TURNS = {
    (128, 2_000): 60, (128, 20_000): 15, (128, 200_000): 4,
    (512, 2_000): 25, (512, 20_000): 7, (512, 100_000): 4,
    (1024, 2_000): 7, (1024, 20_000): 4,
}  # fmt: skip
"""Features and rows → turns; the least times of them are compared."""


def ours(batches: Pairs, rank: int, residuals: Residuals) -> Tensor:
    """The library's fit, up to the operator of a ready surrogate."""
    fitter = DMDFitter(rank, dynamics="span", residuals=residuals)
    for x, y in batches:
        fitter.update(Trajectory({"0": x[:, None], "1": y[:, None]}))
    return fitter.surrogate.operator.matrix()


def deeptime(batches: Pairs, rank: int, three: bool, means: bool, few: bool = False) -> object:
    """Deeptime's covariances, and the same solve on the principal axes of the start."""
    from deeptime.covariance import Covariance

    estimator: Any = Covariance  # it has no types
    moments = estimator(
        lagtime=1,
        compute_c00=True,
        compute_c0t=True,
        compute_ctt=three,
        remove_data_mean=means,
        bessels_correction=False,
    )
    for x, y in batches:
        moments.partial_fit((x.double().numpy(), y.double().numpy()))
    model = moments.fetch_model()
    if few:
        some = (len(model.cov_00) - rank, len(model.cov_00) - 1)
        axes = scipy.linalg.eigh(model.cov_00, subset_by_index=some, check_finite=False)[1]
    else:
        axes = np.linalg.eigh(model.cov_00)[1][:, -rank:]
    inner = axes.T @ model.cov_00 @ axes
    inner += RIDGE * np.trace(inner) / rank * np.eye(rank)
    return np.linalg.solve(inner, axes.T @ model.cov_0t @ axes).T


def contenders(rank: int) -> dict[str, Callable[[Pairs], object]]:
    """Name → its fit; deeptime's where it is installed."""
    found: dict[str, Callable[[Pairs], object]] = {
        name: partial(ours, rank=rank, residuals=kept) for name, kept in KEPT.items()
    }
    if find_spec("deeptime"):
        for name, three in ((THREE, True), (TWO, False)):
            found[name] = partial(deeptime, rank=rank, three=three, means=False)
            about_means = partial(deeptime, rank=rank, three=three, means=True)
            found[name + MEANS] = about_means
            found[name + MEANS + FEW] = partial(about_means, few=True)
    return found


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Job → what measures it, one for each size."""
    sizes = {(128, 2_000): 3} if quick else TURNS
    return {
        f"{features} × {rows}": partial(measure, features, rows, turns)
        for (features, rows), turns in sizes.items()
    }


def measure(features: int, rows: int, turns: int) -> dict[str, Any]:
    """Times of all contenders in turn on data made before, and their peak bytes."""
    rank, batches = RANKS[features], list(pairs(rows, features, RANKS[features]))
    runs = {name: partial(fit, batches) for name, fit in contenders(rank).items()}
    times = in_turn(runs, turns)
    size = {"features": features, "rows": min(rows, 20_000)}
    memory = {name: peak_bytes(MODULE, "contender", name=name, **size) for name in runs}
    return {
        "features": features, "rows": rows, "rank": rank, "turns": turns,
        "times": times, "memory": memory,
    }  # fmt: skip


def contender(name: str, features: int, rows: int) -> Callable[[], object]:
    """A contender that streams batches drawn one by one, after two to warm up."""
    rank = RANKS[features]
    fit = contenders(rank)[name]
    fit(pairs(2 * BATCH, features, rank))
    return lambda: fit(pairs(rows, features, rank))


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: least time to that of the peer; the goal is for the same statistics."""
    heads = "about the means | few axes alone | about the origin | peak memory | goal"
    lines = [f"| fit, to deeptime's covariance and the same solve: time | {heads} |"]
    lines.append("|---" * 6 + "|")
    for job, result in results.items():
        rows, memory = result["times"], result["memory"]
        for name, beside in BESIDE.items():
            known = beside + MEANS, beside + MEANS + FEW, beside
            peers = [peer for peer in known if peer in rows]
            ratios = {peer: rows[name]["least"] / rows[peer]["least"] for peer in peers}
            cells = [f"{ratios[p]:.2f}" if p in ratios else "–" for p in known]
            goal = ""
            if name in GOALS and peers:
                bound = GOALS[name][result["features"]]
                met = verdict(ratios[peers[0]] <= bound, result["turns"] > 3)
                goal = f"≤ {bound:g}: {met}"
            what = f"{name}, {job} rows, least of {result['turns']} turns"
            peaks = f"{megabytes(memory[name])}, the peer {megabytes(memory.get(beside))}"
            lines.append(f"| {what} | {' | '.join(cells)} | {peaks} | {goal} |")
        if THREE not in rows:
            lines.append(f"| deeptime, {job} | not installed | | | | |")
    return "\n".join(lines)
