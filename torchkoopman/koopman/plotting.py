"""Pictures of a surrogate beside its network: samples through depth, and Koopman modes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from torchkoopman.pictures import CLASSES, GUIDE, MAIN, OTHER, axes_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from torch import Tensor

_GAP = 2.7
"""From the middle of one layer's plane to that of the next, where a plane's states reach to 1."""
_REACH = 1.2
"""What is predicted beyond this is left out, and counted in the title."""


def draw_paths(
    points: Tensor,
    layers: Sequence[str],
    labels: Tensor | None,
    forgotten: Sequence[int],
    lines: int,
    ax: Axes | None,
) -> Axes:
    """Layers side by side: dots of the network, rings of predictions, crosses of an edit.

    Args:
        points: ``(samples, layers, systems, 2)``, NaN where a system says nothing: the network, the
            surrogate, and the edited one if there is one.
        layers: their names, ``(layers,)``.
        labels: ``(samples,)``; None for one color.
        forgotten: classes whose samples the edit is drawn for.
        lines: samples that are followed from layer to layer.
        ax: where to draw; None for a new figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    places, beyond = _side_by_side(points)
    height = 0.15 + max(0.5, places[..., 1].nan_to_num().abs().max().item())
    ax = axes_for(ax, 2.6 + 1.9 * len(layers), 0.9 + 1.5 * height)
    known = torch.zeros(len(points), dtype=torch.long) if labels is None else labels
    classes = sorted(set(known.tolist()))
    for label in classes:
        color = CLASSES[classes.index(label) % len(CLASSES)]
        own, gone = places[known == label], label in forgotten
        for way in places[:lines, :, 0][known[:lines] == label]:
            ax.plot(*way.T.numpy(), color=color, lw=0.6, alpha=0.3, zorder=1)
        _strokes(ax, own[:, 1:, 0], own[:, 1:, 1], color)
        name = f"class {'unknown' if label < 0 else label}{' (forgotten)' if gone else ''}"
        name = "samples" if labels is None else name
        _marks(ax, own[:, :, 0], name, s=12, facecolors=color, edgecolors="none")
        _marks(ax, own[:, :, 1], "", s=22, facecolors="none", edgecolors=color, linewidths=0.7)
        if gone and own.shape[2] > 2:
            _strokes(ax, own[:, 1:, 1], own[:, 1:, 2], color)
            _marks(ax, own[:, 1:, 2], "", s=26, marker="x", color=color, linewidths=1.1)
    middles = [_GAP * depth for depth in range(len(layers))]
    ax.set(xlim=(-1.3, middles[-1] + 1.3), ylim=(-height, height), yticks=[], aspect="equal")
    ax.set_xticks(middles, [f"layer {layer}" for layer in layers])
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    out = f", {beyond} predictions beyond this view" if beyond else ""
    ax.set_title(f"{len(points)} samples through depth{out}", fontsize=10)
    _explain(ax, bool(forgotten) and points.shape[2] > 2)
    return ax


def _side_by_side(points: Tensor) -> tuple[Tensor, int]:
    """Each layer in its own scale, beside the layer before; how many do not fit there."""
    largest = points[:, :, :1].abs().amax((0, 2, 3), keepdim=True)
    scaled = points / torch.where(largest > 0, largest, 1.0)
    beyond = (scaled.abs() > _REACH).any(-1)
    scaled[beyond] = torch.nan
    scaled[..., 0] += _GAP * torch.arange(points.shape[1], dtype=points.dtype)[:, None]
    return scaled, int(beyond.sum())


def _marks(ax: Axes, places: Tensor, name: str, **look: Any) -> None:
    x, y = places.reshape(-1, 2).T.numpy()
    ax.scatter(x, y, label=name or None, zorder=3, alpha=0.85, **look)


def _strokes(ax: Axes, start: Tensor, end: Tensor, color: str) -> None:
    """From each of one system's places to the other's."""
    from matplotlib.collections import LineCollection

    both = torch.stack([start, end], -2).reshape(-1, 2, 2)
    both = both[both.isfinite().all((1, 2))]
    ax.add_collection(LineCollection(list(both.numpy()), colors=color, lw=0.6, alpha=0.6, zorder=2))


def _explain(ax: Axes, edited: bool) -> None:
    """A legend of classes by color and of systems by shape."""
    from matplotlib.lines import Line2D

    handles, names = ax.get_legend_handles_labels()
    look: dict[str, Any] = {"color": GUIDE, "linestyle": "none", "markersize": 5}
    handles.append(Line2D([], [], marker="o", **look))
    handles.append(Line2D([], [], marker="o", fillstyle="none", **look))
    names += ["network", "surrogate, from the first layer"]
    if edited:
        handles.append(Line2D([], [], marker="x", **look))
        names.append("surrogate that forgets")
    ax.legend(handles, names, fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def draw_modes(
    vectors: Tensor, names: Sequence[str], real: Sequence[bool], title: str, ax: Axes | None
) -> Axes:
    """Modes below each other over the features, each in its own scale.

    Args:
        vectors: complex, ``(features, modes)``.
        names: of the modes.
        real: which of them are real, and have no imaginary part to show.
        title: what they are modes of.
        ax: where to draw; None for a new figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    ax = axes_for(ax, 7.0, 1.0 + 0.9 * len(names))
    features = torch.arange(len(vectors), dtype=torch.float64)
    for row, vector in enumerate(vectors.T):
        parts = torch.view_as_real(vector)
        largest = parts.abs().max()
        heights = 0.45 * parts / largest if largest > 0 else parts
        ax.axhline(-row, color=GUIDE, lw=0.5, alpha=0.5, zorder=0)
        x, level = features.numpy(), (heights - row).numpy()
        stems = ax.vlines(x, -row, level[:, 0], color=MAIN, lw=1.6, zorder=2)
        stems.set_label("real part" if row == 0 else "")
        if not real[row]:
            rings = ax.scatter(x, level[:, 1], s=9, facecolors="none", edgecolors=OTHER)
            rings.set_label("imaginary part" if all(real[:row]) else "")
    ax.set_yticks([-row for row in range(len(names))], list(names), fontsize=8)
    ax.set(ylim=(-len(names) + 0.4, 0.6), xlabel="feature", xlim=(-1, len(vectors)))
    ax.set_title(title, fontsize=10)
    if not all(real):
        ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax
