"""Eigenvalues in the complex plane as a picture; matplotlib is loaded only when one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

_TRUSTED, _OTHERS, _CIRCLE = "#1b5e8c", "#b8672a", "#6b6b6b"
_LEAST, _MOST = 10.0, 180.0
"""Areas of the markers, in points²."""
_NEAR = 1.25
"""The view reaches at least so far from zero, so that the unit circle is whole."""

_HEADROOM = 1.2
"""Above the highest value there is room for the legend."""


def draw(
    eigenvalues: Tensor, trusted: Tensor | None, energies: Tensor | None, ax: Axes | None
) -> Axes:
    """Eigenvalues beside the unit circle: filled where trusted, hollow where not.

    Args:
        eigenvalues: complex, ``(modes,)``.
        trusted: bool, ``(modes,)``; None where nothing is known, and all are filled.
        energies: real, ``(modes,)``: area grows with the root of the energy; None for equal areas.
        ax: where to draw; None for a new figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot as plt
        from matplotlib.collections import PathCollection
        from matplotlib.patches import Circle
    except ImportError as error:
        raise ImportError(
            "a plot needs matplotlib, which is not installed: pip install 'torchkoopman[plot]'."
        ) from error
    if ax is None:
        ax = plt.subplots(figsize=(5, 5.4), layout="constrained")[1]
    values = eigenvalues.detach().cpu()
    known = torch.ones(len(values), dtype=torch.bool) if trusted is None else trusted.cpu()
    reach = max([_NEAR, *(1.15 * values[known].abs()).tolist()])
    ax.axhline(0, color=_CIRCLE, linewidth=0.5, alpha=0.5, zorder=0)
    ax.axvline(0, color=_CIRCLE, linewidth=0.5, alpha=0.5, zorder=0)
    ax.add_patch(Circle((0, 0), 1, fill=False, color=_CIRCLE, linewidth=1.0, zorder=1))
    areas = _areas(values, energies)
    drawn = [(known, _TRUSTED, _TRUSTED, 0.85, "trusted" if trusted is not None else "modes")]
    drawn.insert(0, (~known, "none", _OTHERS, 0.7, "not borne out by the data"))
    for which, face, edge, alpha, label in drawn:
        if which.any():
            ax.scatter(
                values[which].real.numpy(),
                values[which].imag.numpy(),
                s=areas[which].numpy(),
                facecolors=face,
                edgecolors=edge,
                linewidths=0.8,
                alpha=alpha,
                zorder=2 + (face != "none"),
                label=f"{label} ({int(which.sum())})",
            )
    inside = (values.real.abs() <= reach) & (values.imag >= -reach)
    beyond = len(values) - int((inside & (values.imag <= _HEADROOM * reach)).sum())
    title = f"{len(values)} eigenvalues of K over the span"
    ax.set_title(title + (f", {beyond} beyond this view" if beyond else ""), fontsize=10)
    ax.set(xlim=(-reach, reach), ylim=(-reach, _HEADROOM * reach), aspect="equal")
    ax.set(xlabel="Re λ", ylabel="Im λ")
    if len(values):
        legend = ax.legend(fontsize=8, loc="upper center", ncols=2, frameon=False)
        for handle in legend.legend_handles:
            if isinstance(handle, PathCollection):
                handle.set_sizes([36.0])
    return ax


def _areas(values: Tensor, energies: Tensor | None) -> Tensor:
    """Marker areas: the strongest mode's is the largest."""
    if energies is None or not len(values):
        return torch.full((len(values),), 40.0)
    share = energies.detach().cpu().nan_to_num(0).clamp(min=0)
    return _LEAST + (_MOST - _LEAST) * (share / share.max().clamp(min=1e-300)).sqrt()
