"""Gated neural ODEs: flip-flops held by five cells, and what their flows look like.

After Kim et al. (ICML 2023), who train on 500 trials and have F of [316, 316]. Here all cells of a
seed have the same trials, the same number of iterations and the same learning rates, of which the
validation trials choose; the test trials are looked at once. A job is all cells of one seed.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

import torchkoopman as tk
from benchmarks.parts.gated_networks import Network, Training, drawn, error
from benchmarks.tables import markdown, seeds, spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchkoopman.flows import FlipFlops

SQUARE = (("RNN", 2), ("mGRU", 2), ("GRU", 2), ("nODE", 2), ("gnODE", 2), ("GRU", 32))
FIXED = (("RNN", 6), ("mGRU", 6), ("GRU", 6), ("gnODE", 6))
TASKS: dict[str, tuple[tuple[tuple[str, int], ...], dict[str, Any]]] = {
    "square": (SQUARE, {"bits": 2, "shape": "square"}),
    "fixed": (FIXED, {"bits": 3, "shape": "fixed"}),
}
RATES = (3e-3, 1e-2)
ITERATIONS, TRIALS, UNSEEN = 600, 500, 100
QUICK: dict[str, Any] = {"iterations": 5, "rates": (1e-2,), "trials": 50}
STARTS = 200
"""States of the test trials from which fixed points are searched and read-outs drift."""
STILL = 100
"""Steps without pulses over which the drift is measured: as long as a trial."""
HALF = 0.5
"""The goal: the gnODE's error over that of the GRU with 32 states."""


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Both tasks of each seed, seed by seed."""
    return {
        f"{task}-{seed}": partial(held, task, seed, quick)
        for seed in seeds(quick)
        for task in TASKS
    }


def held(task: str, seed: int, quick: bool) -> dict[str, Any]:
    """All cells of a task on the trials of one seed."""
    cells, options = TASKS[task]
    count = QUICK["trials"] if quick else TRIALS
    train, chosen, test = (
        tk.flows.flip_flops(n, generator=torch.Generator().manual_seed(10 * seed + k), **options)
        for k, n in enumerate((count, UNSEEN, UNSEEN))
    )
    found = {
        f"{cell} {n}": measured(cell, n, seed, train, chosen, test, quick) for cell, n in cells
    }
    return {
        "seed": seed,
        "variance": (test.targets - test.targets.mean()).square().mean().item(),
        "cells": found,
    }


def measured(
    cell: str, n: int, seed: int, train: FlipFlops, chosen: FlipFlops, test: FlipFlops, quick: bool
) -> dict[str, Any]:
    """One cell: trained with each rate, the best on validation trials looked at."""
    start = time.process_time()
    best, least, rate = None, torch.inf, 0.0
    for each in QUICK["rates"] if quick else RATES:
        iterations = QUICK["iterations"] if quick else ITERATIONS
        network, _ = drawn(cell, n, seed, train, Training(each, iterations))
        loss = error(network, chosen)
        if best is None or loss < least:
            best, least, rate = network, loss, each
    assert best is not None
    seconds = time.process_time() - start
    told = {
        "error": error(best, test),
        "rate": rate,
        "parameters": best.size,
        "processor seconds": seconds,
    }
    return told | looked(best, test, seed)


def looked(network: Network, trials: FlipFlops, seed: int) -> dict[str, Any]:
    """Fixed and slow points of the flow between pulses, and how far the read-out drifts there."""
    with torch.no_grad():
        visited = network.states(trials.inputs)[-1].double()
    flow = network.resting()
    starts = visited + 1e-3 * torch.randn(
        visited.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    searched = flow.fixed_points(starts[:STARTS], 100, search="newton")
    settled = flow.fixed_points(starts[:STARTS], 2000)
    drift = tk.flows.readout_drift(flow, network.readout, visited[:STARTS], STILL)
    return {
        "fixed": len(searched.points),
        "slow": len(searched.slow),
        "stable": len(settled.attractors),
        "settled": settled.share_converged,
        "drift": drift[-1].item() / network.readout.out_features,
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """A table for each task."""
    texts = []
    for task, (cells, _) in TASKS.items():
        runs = [run for job, run in results.items() if job.startswith(f"{task}-")]
        if runs:
            texts.append(_table(task, [f"{cell} {n}" for cell, n in cells], runs))
    return "\n\n".join(texts)


HEAD = {"square": "Two bits of continuous amplitudes (square)", "fixed": "Three bits of fixed ±1"}


def _table(task: str, cells: list[str], runs: list[dict[str, Any]]) -> str:
    rows = []
    for cell in cells:
        own = [run["cells"][cell] for run in runs]

        def over(name: str, digits: int, own: list[dict[str, Any]] = own) -> str:
            return spread([each[name] for each in own], digits)

        rows.append(
            [
                *cell.split(),
                over("error", 4),
                f"{own[0]['parameters']}",
                over("processor seconds", 0),
                over("drift", 4),
                over("fixed", 1),
                over("slow", 1),
                over("stable", 1),
                f"{100 * sum(each['settled'] for each in own) / len(own):.0f}",
            ]
        )
    variance = spread([run["variance"] for run in runs], 3)
    head = ["cell", "N", "test MSE", "parameters", "s", "drift", "fixed", "slow", "attractors"]
    text = (
        f"{HEAD[task]}, {len(runs)} seed(s); the mean of the targets would have an MSE of "
        f"{variance}:\n\n{markdown([*head, 'settled %'], rows)}"
    )
    return f"{text}\n\n{_goal(task, runs)}"


def _goal(task: str, runs: list[dict[str, Any]]) -> str:
    if task == "fixed":
        counts = [run["cells"]["gnODE 6"]["stable"] for run in runs]
        met = "met" if all(count == 8 for count in counts) else "MISSED"
        return (
            f"Goal: eight attractors of the gnODE, one for each memory; there are {counts}: {met}."
        )
    own, other = (
        sum(run["cells"][cell]["error"] for run in runs) / len(runs)
        for cell in ("gnODE 2", "GRU 32")
    )
    met = "met" if own <= HALF * other else "MISSED"
    return (
        f"Goal (ours, not the paper's), mean over seeds: the gnODE with 2 states has at most half "
        f"the error of a GRU with 32; it has {own / other:.2f} of it: {met}."
    )
