"""Topology: Betti curves of the network's layers and of the surrogate at their depth-times.

Both on the same unseen rows, the same scales and one ε from one rule. Then the weight of the
isometry loss: what it does to the shape of latent clouds, scale-normalised, and to the accuracy.
"""

from __future__ import annotations

import re
from functools import partial
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch

import torchkoopman as tk
from benchmarks.models import SURROGATES, fitted
from benchmarks.networks import accuracy
from benchmarks.tables import folder, markdown, seeds, spread, tasks
from benchmarks.tasks import watch

if TYPE_CHECKING:
    from collections.abc import Callable

TASKS = ("yinyang", "mnist")
WEIGHTS = (0.0, 1e-3, 1e-1, 1.0)
"""Of the isometry loss; 1e-3 is the default."""
GOAL = 0.1
"""Relative L1 distance of the surrogate's β0 curve from the network's, at each layer."""
POINTS = {"yinyang": 1000, "mnist": 2000}
CURVE = ("scales", "values", "low", "high")
ALL = 10_000
"""The Koopman-autoencoder paper's number of MNIST test points."""


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Curves by task and seed; the isometry's weights; all MNIST test points at once."""
    found: dict[str, Callable[[], dict[str, Any]]] = {
        f"{task}-{seed}": partial(shapes, task, seed, quick)
        for task in tasks(quick)
        for seed in seeds(quick)
    }
    for task in tasks(quick):
        for weight in WEIGHTS[1::2] if quick else WEIGHTS:
            found[f"isometry-{task}-{weight:g}"] = partial(isometry, task, weight, quick)
    if "mnist" in tasks(quick):
        found["mnist-all"] = all_points
    return found


def shapes(task: str, seed: int, quick: bool) -> dict[str, Any]:
    """Curves of one network and its surrogates."""
    known = fitted(task, seed, quick, folder(quick))
    found: dict[str, Any] = {}
    for method in SURROGATES:
        for normalise in (False, True):
            result = known.surrogates[method].topology(
                known.model,
                known.data.test.loader(1000),
                points=200 if quick else POINTS[task],
                normalise=normalise,
                generator=torch.Generator().manual_seed(seed),
            )
            print(f"{method}\n{result}\n", flush=True)
            found[f"{method}{', normalised' if normalise else ''}"] = card(result)
    return found


def isometry(task: str, weight: float, quick: bool) -> dict[str, Any]:
    """The autoencoder with another weight of the isometry, on the first seed's network."""
    seed = seeds(quick)[0]
    known = fitted(task, seed, quick, folder(quick))
    default = tk.LossWeights()
    weights = tk.LossWeights(**{**vars(default), "isometry": weight})
    fitter = known.task.fitter(known.model, seed, weights=weights)
    watch(known.model, known.task.stream(known.data.train, seed), fitter)
    surrogate = fitter.train(known.task.steps).surrogate
    found: dict[str, Any] = {"weight": weight, "task": task, "seed": seed}
    for space in ("latent", "states"):
        result = surrogate.topology(
            known.model,
            known.data.test.loader(1000),
            points=200 if quick else 1000,
            dimensions=(0,),
            space=space,
            normalise=True,
        )
        found[space] = card(result)
    found["fvu"] = 1 - tk.evaluate(surrogate, known.model, known.data.test.loader(1000)).r2
    found["accuracy"] = accuracy(tk.swap(known.model, surrogate), known.data.test)
    return found


def all_points() -> dict[str, Any]:
    """β0 of all MNIST test points, as in the paper's figure; the first seed's network."""
    known = fitted("mnist", seeds(quick=False)[0], False, folder(False))
    result = known.surrogates["autoencoder"].topology(
        known.model,
        known.data.test.loader(1000),
        points=ALL,
        dimensions=(0,),
        bootstrap=0,
        normalise=True,
    )
    return card(result)


def card(result: tk.results.Topology) -> dict[str, Any]:
    """What the tables and the figures need."""
    layers = []
    for each in result.layers:
        entry: dict[str, Any] = {"layer": each.layer, "time": each.time}
        entry["components"] = each.components(result.epsilon)
        for dimension, pair in each.curves.items():
            entry[f"relative {dimension}"] = each.relative(dimension)
            entry[f"spread {dimension}"] = pair[0].spread()
            entry[f"curves {dimension}"] = [
                {
                    name: getattr(curve, name).tolist()
                    for name in ("scales", "values", "low", "high")
                }
                for curve in pair
            ]
        layers.append(entry)
    return {
        "rows": result.rows,
        "epsilon": result.epsilon,
        "layers": layers,
        "simplifies": list(result.simplifies()),
    }


def kept(result: dict[str, Any]) -> dict[str, Any]:
    """A job's result without the curves, which the figures are drawn from and no table is."""

    def without(value: Any) -> Any:
        if isinstance(value, list):
            return [without(each) for each in value]
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if not k.startswith("curves ")}
        return value

    slim: dict[str, Any] = without(result)
    return slim


def table(results: dict[str, dict[str, Any]]) -> str:
    """Distances by layer, β0 by layer, and the isometry's weights."""
    texts = []
    for task in TASKS:
        runs = [result for job, result in results.items() if re.fullmatch(rf"{task}-\d+", job)]
        if runs:
            texts.append(_task(task, runs))
        studies = [result for result in results.values() if result.get("task") == task]
        if studies:
            texts.append(_isometry(task, studies))
    if "mnist-all" in results:
        texts.append(_all(results["mnist-all"]))
    return "\n\n".join(texts)


def _task(task: str, runs: list[dict[str, Any]]) -> str:
    """One row for each surrogate and layer."""
    rows, worst = [], 0.0
    for name in (key for key in runs[0] if key not in ("seconds", "origin")):
        for depth, layer in enumerate(runs[0][name]["layers"]):
            each = [run[name]["layers"][depth] for run in runs]
            distances = [entry["relative 0"] for entry in each]
            if name == "autoencoder":
                worst = max(worst, mean(distances))
            counts = [f"{mean(entry['components'][k] for entry in each):.0f}" for k in (0, 1)]
            loops = spread([entry["relative 1"] for entry in each], 2)
            sampling = f"{mean(entry['spread 1'] for entry in each):.2f}"
            cells = [layer["layer"], *counts, spread(distances, 3), loops, sampling]
            rows.append([name, *cells])
    head = ["surrogate", "layer", "β0 network", "β0 surrogate", "β0 rel. L1", "β1 rel. L1"]
    falls = [sum(run["autoencoder, normalised"]["simplifies"][k] for run in runs) for k in (0, 1)]
    return (
        f"{task}, {len(runs)} seed(s), {runs[0]['EDMD']['rows']} unseen points; the last column is "
        f"how far β1 of another sample may lie:\n\n"
        f"{markdown([*head, 'β1 sampling'], rows)}\n\n"
        f"Goal: relative L1 of β0 at most {GOAL} at each layer, autoencoder, mean over seeds; at "
        f"worst {worst:.3f}: {'met' if worst <= GOAL else 'MISSED'}. Scale-normalised β0 at ε "
        f"falls from layer to layer in {falls[0]} of {len(runs)} networks, {falls[1]} surrogates."
    )


def _isometry(task: str, studies: list[dict[str, Any]]) -> str:
    head = ["λ_iso", "accuracy %", "R²", "β0 rel. L1, latent: worst layer", "states: worst layer"]
    rows = [
        [
            f"{study['weight']:g}",
            f"{100 * study['accuracy']:.2f}",
            f"{1 - study['fvu']:.4f}",
            *(
                f"{max(layer['relative 0'] for layer in study[space]['layers']):.3f}"
                for space in ("latent", "states")
            ),
        ]
        for study in studies
    ]
    title = f"Weight of the isometry loss, {task}, seed {studies[0]['seed']}, normalised clouds"
    return f"{title}:\n\n{markdown(head, rows)}"


def _all(result: dict[str, Any]) -> str:
    head = ["layer", "β0 network", "β0 surrogate", "β0 rel. L1"]
    rows = [
        [layer["layer"], *map(str, layer["components"]), f"{layer['relative 0']:.3f}"]
        for layer in result["layers"]
    ]
    title = f"All {result['rows']} MNIST test points, normalised, the first seed"
    return f"{title}:\n\n{markdown(head, rows)}"
