"""Pictures of an audit: what each network lost or gained by class, and where it is detected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchkoopman.pictures import CLASSES, GUIDE, MAIN, OTHER, axes_for

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from matplotlib.axes import Axes

_LINEAR = 1.0
"""Percentage points about zero that are drawn linearly; beyond, each power of ten is as long."""
_MARKS = "oDsv^<>P"
"""Shapes of the networks, in their order."""


def draw_differences(
    differences: Mapping[str, Sequence[float]],
    classes: Sequence[int],
    forgotten: Collection[int],
    first: str,
    ax: Axes | None,
) -> Axes:
    """Differences in accuracy, a row for each class and a shape for each network.

    Args:
        differences: network → percentage points against the original, ``(classes,)``.
        classes: their labels.
        forgotten: those whose rows have a band, and a word beside their label.
        first: the network whose marks are filled; those of the others are hollow.
        ax: where to draw; None for a new figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    labels = [f"{c} (forgotten)" if c in forgotten else f"{c}" for c in classes]
    ax = _draw_rows(differences, labels, 0.0, first, ax, skipped=1)
    for row, label in enumerate(classes):
        if label in forgotten:
            ax.axhspan(row - 0.5, row + 0.5, color=GUIDE, alpha=0.12, lw=0, zorder=0)
            ax.get_yticklabels()[row].set_fontweight("bold")
    _set_scale(ax, [value for points in differences.values() for value in points])
    ax.set(ylabel="class", xlabel="accuracy on unseen data, percentage points from the original's")
    return ax


def draw_detections(
    found: Mapping[str, Sequence[float]], states: Sequence[str], first: str, ax: Axes | None
) -> Axes:
    """How well the forgotten classes are told from the others, a row for each state and detector.

    Args:
        found: network → balanced accuracies in per cent, ``(states,)``; NaN where unknown.
        states: where they are looked for, and by what.
        first: the network whose marks are filled; those of the others are hollow.
        ax: where to draw; None for a new figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    ax = _draw_rows(found, states, 50.0, first, ax)
    low = min([50.0, *(value for values in found.values() for value in values if value < 50)])
    ax.set(xlim=(low - 2, 102), xlabel="balanced accuracy of a detector, %; 50 is chance")
    return ax


def _draw_rows(
    values: Mapping[str, Sequence[float]],
    rows: Sequence[str],
    base: float,
    first: str,
    ax: Axes | None,
    skipped: int = 0,
) -> Axes:
    """Each network's values as marks at the end of strokes from ``base``, row by row.

    ``skipped`` looks are those of networks that are not drawn here, so that each has one look.
    """
    ax = axes_for(ax, 7.0, 1.6 + 0.42 * len(rows))
    ax.axvline(base, color=GUIDE, lw=1.0, zorder=1)
    others = (OTHER, *CLASSES[2:])
    for k, (name, own) in enumerate(values.items()):
        main = name == first
        look = k + skipped
        color = MAIN if main else others[look % len(others)]
        # Side by side within the row, so that equal values do not hide each other.
        shift = 0.5 * ((k + 0.5) / len(values) - 0.5)
        places = [row + shift for row in range(len(rows))]
        ax.hlines(places, base, own, color=color, lw=0.8, alpha=0.6, zorder=2)
        mark = _MARKS[0] if main else _MARKS[1 + look % (len(_MARKS) - 1)]
        dots = ax.scatter(own, places, s=30, marker=mark, label=name, zorder=3, linewidths=1.0)
        dots.set(facecolors=color if main else "white", edgecolors=color)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(ylim=(len(rows) - 0.5, -0.5))
    ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def _set_scale(ax: Axes, values: Sequence[float]) -> None:
    """Linear about zero and in powers of ten beyond, as far as the differences reach."""
    low, high = (1.5 * end for end in (min([-_LINEAR, *values]), max([_LINEAR, *values])))
    ax.set_xscale("symlog", linthresh=_LINEAR, linscale=0.8)
    ticks = [tick for tick in (-100.0, -10.0, -1.0, 0.0, 1.0, 10.0, 100.0) if low <= tick <= high]
    ax.set_xticks(ticks, [f"{tick:+g}" if tick else "0" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlim(low, high)
