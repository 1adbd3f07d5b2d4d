"""The picture of an audit: what each network lost or gained on each class, against the original."""

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
    ax = axes_for(ax, 7.0, 1.6 + 0.42 * len(classes))
    gone = [row for row, label in enumerate(classes) if label in forgotten]
    for row in gone:
        ax.axhspan(row - 0.5, row + 0.5, color=GUIDE, alpha=0.12, lw=0, zorder=0)
    ax.axvline(0, color=GUIDE, lw=1.0, zorder=1)
    others = (OTHER, *CLASSES[2:])
    for k, (name, points) in enumerate(differences.items()):
        main = name == first
        color = MAIN if main else others[k % len(others)]
        # Side by side within the row, so that equal values do not hide each other.
        rows = [row + 0.5 * ((k + 0.5) / len(differences) - 0.5) for row in range(len(classes))]
        ax.hlines(rows, 0, points, color=color, lw=0.8, alpha=0.6, zorder=2)
        mark = _MARKS[0] if main else _MARKS[1 + k % (len(_MARKS) - 1)]
        dots = ax.scatter(points, rows, s=30, marker=mark, label=name, zorder=3, linewidths=1.0)
        dots.set(facecolors=color if main else "white", edgecolors=color)
    labels = [f"{c} (forgotten)" if c in forgotten else f"{c}" for c in classes]
    ax.set_yticks(range(len(classes)), labels)
    for row in gone:
        ax.get_yticklabels()[row].set_fontweight("bold")
    ax.set(ylim=(len(classes) - 0.5, -0.5), ylabel="class")
    _set_scale(ax, [value for points in differences.values() for value in points])
    ax.set_xlabel("accuracy on unseen data, percentage points from the original's")
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
