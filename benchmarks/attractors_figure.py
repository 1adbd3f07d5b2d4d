"""Attractors through training, and how they tell novelty (``benchmarks.kept_figures``)."""

from __future__ import annotations

import math
from statistics import mean
from typing import TYPE_CHECKING, Any

from matplotlib import pyplot as plt

from benchmarks.parts.attractors import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STARTS = (("train", "#1b5e8c"), ("test", "#d9762b"), ("noise", "#3f8f4f"))
OTHER = "#7a7a7a"


def drawn(results: dict[str, dict[str, Any]]) -> Figure:
    """By kind: attractors from each set, how far the sets are apart, and how novelty is told."""
    order = list(KINDS)
    named = dict.fromkeys(run["kind"] for run in results.values())
    kinds = sorted(named, key=lambda kind: order.index(kind) if kind in order else len(order))
    picture, axes = plt.subplots(
        3, len(kinds), figsize=(3.6 * len(kinds), 7.2), layout="constrained", squeeze=False
    )
    for column, kind in enumerate(kinds):
        runs = [run for run in results.values() if run["kind"] == kind]
        above, middle, below = axes[:, column]
        for k, (name, colour) in enumerate(STARTS):
            lines(above, [[look[k] for look in run["attractors"]] for run in runs], colour, name)
        for k, (name, colour) in enumerate(STARTS[:2]):
            apart = [[look[k][2] for look in run["chamfer"]] for run in runs]
            lines(middle, apart, colour, f"{name} to noise")
        for score, colour in (("orbit", STARTS[0][1]), ("reconstruction", OTHER)):
            told = [[fpr95(look, score) for look in run["novelty"]] for run in runs]
            lines(below, told, colour, score)
        below.axhline(0.95, color=OTHER, linewidth=0.8, linestyle=":")
        above.set_title(f"{kind}, {len(runs)} seeds", fontsize=10)
        for place in (above, middle, below):
            place.set_xticks(range(len(runs[0]["steps"])), [str(step) for step in runs[0]["steps"]])
            place.tick_params(labelsize=8)
        above.set_ylim(bottom=0)
        below.set(ylim=(0, 1.03), xlabel="steps of the training")
    axes[0, 0].set_ylabel("attractors")
    axes[1, 0].set_ylabel("Chamfer distance, spreads")
    axes[2, 0].set_ylabel("FPR95 of digits 5 to 9")
    for place in axes[:, 0]:
        place.legend(fontsize=8)
    return picture


def lines(place: Axes, runs: list[list[float]], colour: str, label: str) -> None:
    """Each seed pale, and their mean, where all have a value, strong."""
    for run in runs:
        place.plot(run, color=colour, alpha=0.25, linewidth=0.8)
    means = [mean(each) for each in zip(*runs, strict=True)]
    place.plot(means, color=colour, marker="o", markersize=3, label=label)


def fpr95(look: dict[str, list[float]], score: str) -> float:
    """NaN where no training start came to rest, so that there was no such score."""
    return look[score][1] if score in look else math.nan
