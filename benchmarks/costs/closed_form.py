"""Cost of the closed-form fit, beside a floor written here, PyDMD and kooplearn.

Rows of a random linear system of rank 64 with noise. Ours and the floor stream float32 batches, as
activations come, into float64 sums; the peers get the whole data in float64, which is made before
their memory is measured and so does not count against them.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.costs.measuring import in_turn, megabytes, peak_bytes, ratios, verdict
from torchkoopman.fitting.dmd import DMDFitter
from torchkoopman.observe.trajectory import Trajectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Pairs = Iterable[tuple[Tensor, Tensor]]

MODULE = "benchmarks.costs.closed_form"
BATCH = 1000
RIDGE = 1e-9
PEERS = {"PyDMD": "pydmd", "kooplearn": "kooplearn"}
TIME_GOAL, MEMORY_GOAL = 1.2, 40e6


def pairs(rows: int, features: int, rank: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches ``(x, y)`` with ``y = A x + noise``, drawn one by one; chains run on through them."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(features, rank, generator=generator)).Q
    inner = torch.linalg.qr(torch.randn(rank, rank, generator=generator)).Q
    A = 0.97 * basis @ inner @ basis.T
    x = torch.randn(BATCH, features, generator=generator)
    for _ in range(rows // BATCH):
        y = x @ A.T + 0.3 * torch.randn(BATCH, features, generator=generator)
        yield x, y
        x = y


def ours(batches: Pairs, rank: int) -> Tensor:
    """The library's fit, up to the operator of a ready surrogate."""
    fitter = DMDFitter(rank)
    for x, y in batches:
        fitter.update(Trajectory.of(x, y))
    return fitter.surrogate.operator.matrix()


def floor(batches: Pairs, rank: int) -> Tensor:
    """The least that does the same: two float64 Gram matrices, an eigendecomposition, a solve."""
    gram, cross = torch.zeros(0), torch.zeros(0)
    for x, y in batches:
        start, end = x.double(), y.double()
        if gram.numel() == 0:
            gram = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
            cross = torch.zeros_like(gram)
        gram.addmm_(start.T, start)
        cross.addmm_(start.T, end)
    axes = torch.linalg.eigh(gram).eigenvectors[:, -rank:]
    inner = axes.T @ gram @ axes
    inner += RIDGE * inner.trace() / rank * torch.eye(rank, dtype=torch.float64)
    solution: Tensor = torch.linalg.solve(inner, axes.T @ cross @ axes).T
    return solution


def pydmd(start: Any, end: Any, rank: int) -> object:
    """PyDMD's exact DMD of pairs of snapshots."""
    from pydmd import DMD

    return DMD(svd_rank=rank).fit(start.T, end.T)


def kooplearn(start: Any, end: Any, rank: int) -> object:
    """Kooplearn's principal component regression; it takes one series, so the chains in a row."""
    from kooplearn.linear_model import Ridge

    model: Any = Ridge  # it has no types
    return model(rank, reduced_rank=False, alpha=RIDGE, eigen_solver="dense").fit(start)


def contender(name: str, rows: int, features: int, rank: int) -> Callable[[], object]:
    """A contender with what it needs, ready to run, as :func:`peak_bytes` wants it."""
    streaming = {"ours": ours, "floor": floor}
    if name in streaming:
        fit = streaming[name]
        fit(pairs(2 * BATCH, features, rank), rank)
        return lambda: fit(pairs(rows, features, rank), rank)
    peer = {"PyDMD": pydmd, "kooplearn": kooplearn}[name]
    sides = zip(*pairs(rows, features, rank), strict=True)
    whole = [torch.cat(side).double().numpy() for side in sides]
    peer(whole[0][: 2 * BATCH], whole[1][: 2 * BATCH], rank)
    return lambda: peer(whole[0], whole[1], rank)


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Job → what measures it."""
    size = (4_000, 128, 16) if quick else (20_000, 512, 64)
    long = 100_000 if quick else 1_000_000
    return {
        "time": lambda: times(*size, turns=3 if quick else 7),
        "memory": lambda: memory(*size),
        "flat": lambda: flat(long, *size[1:]),
    }


def installed() -> list[str]:
    """Names of the contenders that can run."""
    return ["floor", "ours", *(name for name, module in PEERS.items() if find_spec(module))]


def times(rows: int, features: int, rank: int, turns: int) -> dict[str, Any]:
    """Times of all contenders on data made before."""
    batches = list(pairs(rows, features, rank))
    runs: dict[str, Callable[[], object]] = {
        "floor": lambda: floor(batches, rank),
        "ours": lambda: ours(batches, rank),
    }
    for name in installed()[2:]:
        runs[name] = contender(name, rows, features, rank)
    return {"rows": rows, "features": features, "rank": rank, "times": in_turn(runs, turns)}


def memory(rows: int, features: int, rank: int) -> dict[str, Any]:
    """Peak bytes of each contender."""
    size = {"rows": rows, "features": features, "rank": rank}
    return {name: peak_bytes(MODULE, "contender", name=name, **size) for name in installed()}


def flat(long: int, features: int, rank: int) -> dict[str, Any]:
    """Peak bytes of our fit of a short and a long stream."""
    size = {"features": features, "rank": rank}
    return {
        str(rows): peak_bytes(MODULE, "contender", name="ours", rows=rows, **size)
        for rows in (10_000, long)
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown; ratios are medians over turns, those of least times in brackets."""
    lines = ["| closed-form fit | time ÷ floor | peak memory | goal |", "|---|---|---|---|"]
    size, sizes = results.get("time", {}), results.get("memory", {})
    rows = size.get("times", {})
    if rows:
        title = f"{size['features']}-d × {size['rows']} rows, rank {size['rank']}"
        lines[0] = lines[0].replace("closed-form fit", f"closed-form fit, {title}")
    for name in ("floor", "ours", *PEERS) if rows or sizes else ():
        goal = ""
        if name == "ours" and name in rows and name in sizes:
            met = rows[name]["ratio"] <= TIME_GOAL, sizes[name] <= MEMORY_GOAL
            full = size["features"] == 512
            goal = f"≤ {TIME_GOAL}: {verdict(met[0], full)}; ≤ 40 MB: {verdict(met[1], full)}"
        lines.append(f"| {name} | {ratios(rows, name)} | {megabytes(sizes.get(name))} | {goal} |")
    if "flat" in results:
        (short, less), (long, more) = list(_sizes(results["flat"]).items())
        steady = verdict(more <= 1.1 * less)
        lines.append(
            f"| ours, {short} → {long} rows | | {megabytes(less)} → {megabytes(more)} | "
            f"flat: {steady} |"
        )
    return "\n".join(lines)


def _sizes(result: dict[str, Any]) -> dict[int, float]:
    """The entries whose names are numbers of rows."""
    return {int(rows): size for rows, size in result.items() if rows.isdigit()}
