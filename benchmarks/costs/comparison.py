"""Cost of comparing two operators, and whether the quick search comes as far as the slow one.

``tk.compare`` with its ten null pairs, in processor seconds of one thread; the search for large
matrices beside that for small ones, from the same starts; and beside DSA's search by gradients
(Ostrow et al. 2023), where ``dsa-metric`` is installed.
"""

from __future__ import annotations

import math
import time
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.costs.measuring import one_thread, verdict
from torchkoopman.spectra.alignment import alignment_starts, ascend, random_orthogonal
from torchkoopman.spectra.comparison import compare
from torchkoopman.spectra.geodesics import climb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

SECONDS, NEARER = 10.0, 1e-6
"""Goals: of one comparison at rank 100; how much farther the quick search may end, relatively."""
DSA_STEPS = 1500
"""Its default."""


def systems(size: int, seed: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Pairs of operators of several kinds."""
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> Tensor:
        matrix = torch.randn(size, size, generator=generator, dtype=torch.float64)
        scaled: Tensor = matrix / size**0.5
        return scaled

    def turn() -> Tensor:
        return random_orthogonal(size, 1, generator)[0]

    A, Q = drawn(), turn()
    yield "unrelated", A, drawn()
    for noise in (0.0, 0.1, 0.5):
        yield f"one system, noise {noise:g}", A, Q @ (A + noise * drawn()) @ Q.T
    yield "one set of singular values", A, turn() * torch.linalg.svdvals(A) @ turn()
    decay = torch.linspace(0.99, 0.1, size).double().diag() @ (torch.eye(size) + 0.1 * drawn())
    yield "decays, noise 0.03", decay, Q @ (decay + 0.03 * drawn()) @ Q.T
    yield "rotations", turn(), turn()


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Job → what measures it."""
    sizes = (40,) if quick else (40, 100)
    found: dict[str, Callable[[], dict[str, Any]]] = {
        "seconds": partial(seconds, 40 if quick else 100)
    }
    return found | {f"searches at {size}": partial(searches, size) for size in sizes}


def seconds(size: int) -> dict[str, Any]:
    """Processor seconds of one comparison, the least of three; of DSA's for one pair."""
    _, A, B = next(systems(size, 0))
    whole = [_timed(partial(compare, A, B)) for _ in range(3)]
    took = {"tk.compare, with ten null pairs": min(spent for spent, _ in whole)}
    distances = {"tk.compare": whole[0][1].angle}
    if find_spec("DSA"):
        spent, distances["DSA"] = _timed(partial(dsa, A, B))
        took[f"DSA, one pair, {DSA_STEPS} steps"] = spent
    return {"size": size, "took": took, "distances": distances}


def dsa(first: Tensor, second: Tensor) -> float:
    """The angle that DSA's search ends at."""
    from DSA import SimilarityTransformDist

    search = SimilarityTransformDist(iters=DSA_STEPS, score_method="angular", device="cpu")
    return float(search.fit_score(first.numpy(), second.numpy()))


def searches(size: int) -> dict[str, Any]:
    """How far both searches come from the same starts, pair by pair, relative to the scale."""
    rows, total = {}, {"slow": 0.0, "quick": 0.0}
    for seed in (100, 101) if size <= 40 else (100,):
        for name, A, B in systems(size, seed):
            drawn = random_orthogonal(size, 8, torch.Generator().manual_seed(seed))
            starts = torch.cat([alignment_starts(A, B), drawn])
            scale, ends = math.hypot(A.norm(), B.norm()), {}
            for search, run in (
                ("slow", partial(ascend, iterations=300)),
                ("quick", partial(climb, steps=150)),
            ):
                spent, C = _timed(partial(run, A, B, starts))
                total[search] += spent
                ends[search] = (torch.linalg.matrix_norm(A - C @ B @ C.mT).min() / scale).item()
            rows[f"{name}, seed {seed}"] = ends
    return {"size": size, "pairs": rows, "took": total}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: seconds, and how much nearer the quick search ends."""
    lines = ["| comparison | measured | goal |", "|---|---|---|"]
    for result in results.values():
        size = result["size"]
        if "pairs" in result:
            farther = [pair["quick"] - pair["slow"] for pair in result["pairs"].values()]
            share = result["took"]["quick"] / result["took"]["slow"]
            met = verdict(max(farther) <= NEARER)
            what = f"conjugate gradients of size {size}, to the search of small ones"
            told = (
                f"{share:.2f} × the time; {-min(farther):.4f} nearer to {max(farther):.0e} farther"
            )
            lines.append(
                f"| {what}, {len(farther)} pairs | {told} of the scale | never farther: {met} |"
            )
            continue
        for name, took in result["took"].items():
            goal = (
                f"≤ {SECONDS:g} s: {verdict(took <= SECONDS, size == 100)}" if "tk" in name else ""
            )
            lines.append(f"| {name}, size {size} | {took:.1f} s | {goal} |")
        ends = ", ".join(f"{name} {value:.3f}" for name, value in result["distances"].items())
        missing = "" if "DSA" in result["distances"] else "; DSA: not installed"
        lines.append(f"| angle found of that pair, radians | {ends}{missing} | |")
    return "\n".join(lines)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds on one thread, and what came out."""
    with one_thread():
        start = time.process_time()
        found = work()
        return time.process_time() - start, found
