"""More of gated cells: the bar under a rate that falls, three continuous bits, what trains them.

After Kim et al. (ICML 2023), smaller: F of [100, 100] for two bits but in one comparison, which has
the paper's F and the upper rates of its grid, and fewer iterations for three.
In each comparison all cells have the same trials, iterations, schedule and learning rates, of which
the validation trials choose. The rate falls to 0 by a cosine, for all cells alike; the part
``gated`` has the first task at constant rates. Settings were searched on seeds from 100 on.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import torchkoopman as tk
from benchmarks.parts import cells_tables as shown
from benchmarks.parts.gated_networks import CELLS, Network, Training, drawn, error
from benchmarks.tables import seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torchkoopman.flows import FlipFlops

KINDS = ("RNN", "mGRU", "GRU", "nODE", "gnODE")
DEEP = (100, 100, 100)
"""Hidden layers of F for three bits, the paper's."""
EQUAL = (("RNN", 144), ("mGRU", 102), ("GRU", 82))
"""Cells of about as many parameters as the gnODE of 6 states with ``DEEP``."""
PAPERS = (316, 316)
"""Hidden layers of F for two bits, the paper's."""
BAR = (("gnODE", 2), ("GRU", 32))
THREE = (*((kind, n) for n in (6, 100) for kind in KINDS), *EQUAL)
SQUARE_RATES, THREE_RATES = (3e-2, 1e-1), (3e-3, 1e-2)
"""Of two bits: on other seeds the gnODE does best with the first and is lost with the second, the
GRU with the second; .01 and .3 are worse for both."""
ITERATIONS = {"early": 350, "square": 1500, "three": 150, "grid": 150}
"""Of two bits 150 epochs in batches of 50; the paper has 200. The goal was set after 350 iterations
at constant rates, which are ``early``."""
DECAYS = (1e-3, 1e-2, 1e-1)
"""Of AdamW, the ends and the middle of the paper's grid."""
GRID_RATE = 1e-2
STATES = (2, 6, 12)
"""Dimensions of the trajectories that cells follow."""
LAYERS = (10, 30, 100, 300)
"""Widths of F's one hidden layer; the comparison by cells has ``LAYER``."""
LAYER, MIDDLE = 100, 6
LENGTH = 4.0
"""Times over which a trajectory turns: with more, most cells of 6 states explain all."""
STEPS = 150
"""Gradient steps of a cell that follows a trajectory."""
TRIALS, UNSEEN, STARTS, STILL = 500, 100, 100, 100
SEARCHED = 6
"""States of a flow at most whose fixed points are searched."""
NEAR_ONE = 0.9
"""A multiplier of a larger modulus is of a direction in which states hardly move."""


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Six kinds of jobs, each of one seed; those that a goal is set for first."""
    kinds = {
        "early": early, "bar": bar, "paper": paper, "three": three, "expressive": expressive,
        "grid": grid,
    }  # fmt: skip
    return {
        f"{name}-{seed}": partial(work, seed, quick)
        for name, work in kinds.items()
        for seed in seeds(quick)
    }


def bar(seed: int, quick: bool) -> dict[str, Any]:
    """Two continuous bits: a gnODE of two states beside a GRU of 32."""
    return compared("square", BAR, SQUARE_RATES, 2, seed, quick)


def paper(seed: int, quick: bool) -> dict[str, Any]:
    """The same with the paper's F, and the two largest rates of its grid."""
    return compared("square", BAR, THREE_RATES, 2, seed, quick, PAPERS)


def early(seed: int, quick: bool) -> dict[str, Any]:
    """The same after as many iterations as when the goal was set, at the rates of ``gated``."""
    return compared("early", BAR, THREE_RATES, 2, seed, quick)


def three(seed: int, quick: bool) -> dict[str, Any]:
    """Three continuous bits: five cells of 6 and of 100 states, and some of equal size."""
    cells = THREE[:5] if quick else THREE
    return compared("three", cells, THREE_RATES, 3, seed, quick, DEEP)


def trials_of(seed: int, bits: int, quick: bool) -> list[FlipFlops]:
    """Trials to train, to choose by, and to test."""
    return [
        tk.flows.flip_flops(n, bits=bits, generator=torch.Generator().manual_seed(10 * seed + k))
        for k, n in enumerate((50 if quick else TRIALS, UNSEEN, UNSEEN))
    ]


def compared(
    task: str,
    cells: Sequence[tuple[str, int]],
    rates: Sequence[float],
    bits: int,
    seed: int,
    quick: bool,
    widths: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Each cell, trained with each rate; that which the validation trials choose is looked at."""
    train, chosen, test = trials_of(seed, bits, quick)
    found: dict[str, Any] = {}
    for cell, n in cells:
        start = time.process_time()
        tried = []
        for rate in rates:
            iterations = 5 if quick else ITERATIONS[task]
            training = Training(rate, iterations, cosine=task != "early")
            network, course = drawn(cell, n, seed, train, training, widths)
            tried.append((error(network, chosen), rate, network, course))
        _, rate, best, course = min(tried, key=lambda each: each[0])
        found[f"{cell} {n}"] = {
            "error": error(best, test),
            "rate": rate,
            "parameters": best.size,
            "processor seconds": time.process_time() - start,
            "course": course,
        } | looked(best, test, seed)
    variance = (test.targets - test.targets.mean()).square().mean().item()
    return {"seed": seed, "variance": variance, "cells": found}


def looked(network: Network, trials: FlipFlops, seed: int) -> dict[str, Any]:
    """Drift, directions in which the flow hardly moves, and of few states the fixed points."""
    with torch.no_grad():
        visited = network.states(trials.inputs)[-1].double()
    flow = network.resting()
    states, bits = visited.shape[1], network.readout.out_features
    drift = tk.flows.readout_drift(flow, network.readout, visited, STILL)
    near = flow.multipliers(visited[: STARTS // 4]).abs() > NEAR_ONE
    told = {
        "drift": drift[-1].item() / bits,
        "near one": near.double().sum(1).mean().item(),
    }
    if states <= SEARCHED:
        starts = visited + 1e-3 * torch.randn(
            visited.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        searched = flow.fixed_points(starts[:STARTS], 60, search="newton")
        settled = flow.fixed_points(starts[:STARTS], 1000)
        told |= {
            "fixed": len(searched.points),
            "slow": len(searched.slow),
            "stable": len(settled.attractors),
        }
    return told


def grid(seed: int, quick: bool) -> dict[str, Any]:
    """Critical start or not, by weight decay: an RNN and a gnODE of 6 states on three bits."""
    train, _, test = trials_of(seed, 3, quick)
    found = {}
    for cell in ("RNN", "gnODE"):
        for critical in (False, True):
            for decay in DECAYS[:1] if quick else DECAYS:
                iterations = 5 if quick else ITERATIONS["grid"]
                training = Training(GRID_RATE, iterations, decay, cosine=True, critical=critical)
                network, course = drawn(cell, MIDDLE, seed, train, training)
                start = "critical" if critical else "as drawn"
                found[f"{cell}, {start}, {decay:g}"] = {
                    "error": error(network, test),
                    "begins": course[0][0],
                }
    variance = (test.targets - test.targets.mean()).square().mean().item()
    return {"seed": seed, "variance": variance, "grid": found}


def expressive(seed: int, quick: bool) -> dict[str, Any]:
    """How well cells follow random trajectories, by dimension and by the width of F."""
    steps = 5 if quick else STEPS

    def score(cell: str, states: int, layer: int) -> tuple[float, float]:
        told = tk.flows.expressivity(
            partial(follower, cell, layer),
            states,
            length=LENGTH,
            draws=1,
            steps=steps,
            generator=torch.Generator().manual_seed(seed),
            progress=False,
        )
        return told.scores.item(), told.untrained.item()

    by_states = {
        f"{cell} {n}": score(cell, n, LAYER) for n in STATES[: 1 if quick else 3] for cell in KINDS
    }
    others = () if quick else LAYERS
    by_layer = {
        f"{cell} {layer}": score(cell, MIDDLE, layer)
        for cell in ("nODE", "gnODE")
        for layer in others
        if layer != LAYER
    }
    return {"seed": seed, "states": by_states, "layers": by_layer}


def follower(cell: str, layer: int, states: int) -> nn.Module:
    """A cell without input, of all kinds with the same F where there is one."""
    if cell == "GRU":
        return nn.GRUCell(1, states)
    options = {**CELLS[cell], "widths": [layer] if "widths" in CELLS[cell] else []}
    return tk.flows.GatedODECell(0, states, **options)


def table(results: dict[str, dict[str, Any]]) -> str:
    """A table for each kind of job."""
    return shown.text(results)


def kept(result: dict[str, Any]) -> dict[str, Any]:
    """A result with courses of four digits, which is what tables and the figure need."""
    cells = {
        name: told | {"course": [[float(f"{v:.4g}") for v in part] for part in told["course"]]}
        for name, told in result.get("cells", {}).items()
    }
    return result | ({"cells": cells} if cells else {})
