"""Cost of persistence: components of many points, loops of few.

Components stand beside a floor written here, ``torch.cdist`` and Prim's algorithm row by row; loops
beside gudhi's ``RipsPersistence`` itself, which the library calls.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.costs.measuring import in_turn, megabytes, peak_bytes, ratios, verdict
from torchkoopman.topology.persistence import deaths, diagram

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = "benchmarks.costs.persistence"
TIME_GOALS, MEMORY_GOAL = {"components": 1.0, "loops": 1.05}, 500e6
"""Loops: the reference's own time, and five hundredths for what a clock cannot tell apart."""


def cloud(points: int, features: int) -> Tensor:
    """Standard normal points, the same whenever asked."""
    return torch.randn(points, features, generator=torch.Generator().manual_seed(0))


def prim(points: Tensor) -> Tensor:
    """Edge lengths of a minimum spanning tree from the whole matrix of distances."""
    distances = torch.cdist(points, points)
    closest, outside = distances[0].clone(), torch.ones(len(points), dtype=torch.bool)
    outside[0] = False
    lengths = torch.zeros(len(points) - 1)
    for edge in range(len(points) - 1):
        lengths[edge], nearest = closest.where(outside, torch.inf).min(0)
        outside[nearest] = False
        torch.minimum(closest, distances[nearest], out=closest)
    return lengths.sort().values


def gudhi(points: Tensor) -> object:
    """Components and loops by gudhi from the points themselves."""
    from gudhi.sklearn import RipsPersistence

    return RipsPersistence([0, 1]).fit_transform([points.double().numpy()])


def ours(points: Tensor) -> tuple[Tensor, Tensor]:
    """Components and loops by the library."""
    return deaths(points), diagram(points, 1)


RUNS: dict[str, dict[str, Callable[[Tensor], object]]] = {
    "components": {"cdist and Prim": prim, "ours": deaths},
    "loops": {"gudhi": gudhi, "ours": ours},
}


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Job → what measures it; loops only where gudhi is installed."""
    many, few = ((1500, 64), (200, 10)) if quick else ((10_000, 784), (1000, 10))
    found = {"components": lambda: measure("components", *many, turns=3)}
    if find_spec("gudhi"):
        found["loops"] = lambda: measure("loops", *few, turns=3 if quick else 7)
    return found


def measure(job: str, points: int, features: int, turns: int) -> dict[str, Any]:
    """Times in turn and peak bytes of each contender."""
    data = cloud(points, features)
    runs = {name: (lambda run=run: run(data)) for name, run in RUNS[job].items()}
    size = {"points": points, "features": features}
    sizes = {name: peak_bytes(MODULE, "contender", job=job, name=name, **size) for name in runs}
    return {**size, "times": in_turn(runs, turns), "memory": sizes}


def contender(job: str, name: str, points: int, features: int) -> Callable[[], object]:
    """A contender with its points, after a few points to warm up."""
    run, data = RUNS[job][name], cloud(points, features)
    run(data[:50])
    return lambda: run(data)


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown; ratios are medians over turns, those of least times in brackets."""
    lines = ["| persistence | time ÷ reference | peak memory | goal |", "|---|---|---|---|"]
    for job, result in results.items():
        rows, sizes = result["times"], result["memory"]
        for name, run in rows.items():
            goal = ""
            full = result["points"] >= 1000 and result["features"] in (784, 10)
            if name == "ours":
                goal = f"≤ {TIME_GOALS[job]:g}: {verdict(run['ratio'] <= TIME_GOALS[job], full)}"
            if name == "ours" and job == "components":
                goal += f"; ≤ 500 MB: {verdict(sizes[name] <= MEMORY_GOAL, full)}"
            what = f"{job} of {result['points']} × {result['features']}, {name}"
            lines.append(f"| {what} | {ratios(rows, name)} | {megabytes(sizes[name])} | {goal} |")
    if "loops" not in results:
        lines.append("| loops | gudhi: not installed, or not measured | | |")
    return "\n".join(lines)
