"""Replacement: the blocks between two layers' outputs, replaced by a surrogate of them.

Accuracy on unseen test data, R² by layer, time and memory of the fit, for the
autoencoder, the closed form, and the trivial ways to replace the blocks.
"""

from __future__ import annotations

from functools import partial
from statistics import mean
from typing import TYPE_CHECKING, Any

from torch import nn

import torchkoopman as tk
from benchmarks.costs.measuring import peak_bytes
from benchmarks.models import MAPS, SURROGATES, fitted
from benchmarks.networks import accuracy
from benchmarks.tables import folder, markdown, seeds, spread, tasks
from torchkoopman.observe.watch import Watch
from torchkoopman.running.evaluation import Evaluator

if TYPE_CHECKING:
    from collections.abc import Callable

GOALS = {"yinyang": (0.2, 10.0), "mnist": (0.15, 180.0)}
"""Task → points of accuracy the autoencoder may lose in the mean, and seconds its fit may take."""

SHOWN = ("autoencoder", "EDMD", "ridge map", "skip")
"""Ways that the summary names."""


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """One job for each task and seed, and one for each fit's memory."""
    found: dict[str, Callable[[], dict[str, Any]]] = {
        f"{task}-{seed}": partial(replace_blocks, task, seed, quick)
        for task in tasks(quick)
        for seed in seeds(quick)
    }
    for task in tasks(quick):
        for method in (MAPS, *SURROGATES):
            found[f"memory-{task}-{method.replace(' ', '-')}"] = partial(
                memory, task, method, quick
            )
    return found


def memory(task: str, method: str, quick: bool) -> dict[str, Any]:
    """Peak memory of a fit above what the network and its data take, in a process of its own."""
    peak = peak_bytes("benchmarks.models", "fitting", name=task, method=method, quick=quick)
    return {"task": task, "method": method, "MB": peak / 1e6}


def replace_blocks(task: str, seed: int, quick: bool) -> dict[str, Any]:
    """Every way of replacing the blocks of one network."""
    known = fitted(task, seed, quick, folder(quick))
    model, test = known.model, known.data.test
    ways: dict[str, nn.Module | tk.Surrogate] = {
        "skip": nn.Identity(),
        **known.maps,
        **known.surrogates,
    }
    swapped: dict[str, nn.Module] = {"network": model}
    for name, way in ways.items():
        swapped[name] = tk.swap(model, way, *known.task.span, example_inputs=test.inputs[:8])
    maps = {name: (map_.weight.double(), map_.bias.double()) for name, map_ in known.maps.items()}
    fvu: dict[str, dict[str, float]] = {}
    for name in SURROGATES:
        surrogate = known.surrogates[name]
        evaluator = Evaluator(surrogate, maps)
        Watch(model, surrogate.layers).stream(test.loader(1000), evaluator)
        evaluation = evaluator.result()
        fvu[name] = {layer: 1 - r2 for layer, r2 in evaluation.layers.items()}
        fvu |= {each: {known.task.span[1]: 1 - r2} for each, r2 in evaluation.baselines.items()}
    return {
        "accuracy": {name: accuracy(net, test) for name, net in swapped.items()},
        "fvu": fvu,
        "seconds of fit": known.seconds,
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """A table for each task, and whether its goals are met."""
    texts = []
    for task, (points, limit) in GOALS.items():
        runs = [result for job, result in results.items() if job.startswith(f"{task}-")]
        if not runs:
            continue
        peaks = {r["method"]: r["MB"] for r in results.values() if r.get("task") == task}
        rows = [_row(name, runs, peaks) for name in runs[0]["accuracy"]]
        head = ["blocks replaced by", "accuracy %", "change", "R² by block", "fit, s", "MB"]
        lost = mean(_lost(run, "autoencoder") for run in runs)
        took = [run["seconds of fit"]["autoencoder"] for run in runs]
        verdict = "met" if lost <= points and mean(took) <= limit else "MISSED"
        texts.append(
            f"{task}, {len(runs)} seed(s), unseen test data:\n\n{markdown(head, rows)}\n\n"
            f"Goal, mean over seeds: the autoencoder loses at most {points} points in at most "
            f"{limit:.0f} s; it loses {lost:.2f} in {mean(took):.1f} s (the slowest "
            f"{max(took):.1f}): {verdict}."
        )
    return "\n\n".join(texts)


TOLD = {
    "yinyang": "five blocks of a perceptron for Yin-Yang replaced by one operator",
    "mnist": "four blocks of a perceptron for MNIST replaced by one operator",
}


def headlines(results: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """What each task loses."""
    found = []
    for task, what in TOLD.items():
        runs = [result for job, result in results.items() if job.startswith(f"{task}-")]
        if runs:
            each = {n: spread([-_lost(run, n) for run in runs], sign=True) for n in SHOWN}
            number = "; ".join(f"{name} {change}" for name, change in each.items())
            found.append((f"{what}: change of test accuracy, points", number))
    return found


def _row(name: str, runs: list[dict[str, Any]], peaks: dict[str, float]) -> list[str]:
    known = [run["fvu"][name] for run in runs if name in run["fvu"]]
    layers = known[0] if known else {}
    values = {layer: mean(1 - each[layer] for each in known) for layer in layers}
    # The two affine maps come from one pass over the same moments.
    method = MAPS if name == "PCA + linear" else name
    took = [run["seconds of fit"][method] for run in runs if method in run["seconds of fit"]]
    peak = peaks.get(method)
    return [
        name,
        spread([100 * run["accuracy"][name] for run in runs]),
        "" if name == "network" else spread([-_lost(run, name) for run in runs], sign=True),
        "  ".join(f"{layer.split('.')[-1]}: {value:.4f}" for layer, value in values.items()),
        f"{mean(took):.1f}" if took else "",
        "" if peak is None else f"{peak:.0f}",
    ]


def _lost(run: dict[str, Any], name: str) -> float:
    """Points of accuracy that a way of replacing loses."""
    return 100 * float(run["accuracy"]["network"] - run["accuracy"][name])
