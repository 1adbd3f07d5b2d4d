"""Eigenvalues as pictures: in the plane, through a training, and how nearly any z is one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch

from torchkoopman.pictures import GUIDE, MAIN, OTHER, axes_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from torch import Tensor

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
    ax = axes_for(ax, 5, 5.4)
    from matplotlib.collections import PathCollection

    values = eigenvalues.detach().cpu()
    known = torch.ones(len(values), dtype=torch.bool) if trusted is None else trusted.cpu()
    reach = max([_NEAR, *(1.15 * values[known].abs()).tolist()])
    _draw_circle(ax)
    areas = _areas(values, energies)
    drawn = [(known, MAIN, MAIN, 0.85, "trusted" if trusted is not None else "modes")]
    drawn.insert(0, (~known, "none", OTHER, 0.7, "not borne out by the data"))
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


def draw_tracks(
    steps: Sequence[float],
    eigenvalues: Tensor,
    trusted: Tensor | None,
    part: Literal["modulus", "angle"],
    ax: Axes | None,
) -> Axes:
    """Modulus or angle of each track's eigenvalue over the steps; dots where it is trusted.

    Args:
        steps: when each spectrum was taken, ascending.
        eigenvalues: complex, ``(steps, tracks)``, NaN where a mode is absent.
        trusted: bool, ``(steps, tracks)``; None where nothing is known, and all have dots.
        part: ``"modulus"``, or ``"angle"`` in turns per span, from -0.5 to 0.5.
        ax: where to draw; None for a new figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is no such part.
    """
    parts = {
        "modulus": (eigenvalues.abs(), "|λ|"),
        "angle": (eigenvalues.angle() / (2 * math.pi), "arg λ / 2π"),
    }
    if part not in parts:
        raise ValueError(f"plot() got part={part!r}; it draws 'modulus' or 'angle'.")
    ax = axes_for(ax)
    (values, label), there = parts[part], ~eigenvalues.isnan()
    borne_out = there if trusted is None else trusted & there
    times = torch.tensor(steps, dtype=torch.float64)[:, None].expand(eigenvalues.shape)
    for track in range(eigenvalues.shape[1]):
        ax.plot(times[:, track].numpy(), values[:, track].numpy(), color=MAIN, lw=1, alpha=0.5)
    for which, face, edge in ((there & ~borne_out, "none", OTHER), (borne_out, MAIN, MAIN)):
        if which.any():
            name = "not borne out by the data" if face == "none" else "trusted"
            dots = ax.scatter(times[which].numpy(), values[which].numpy(), s=16, zorder=3)
            dots.set(facecolors=face, edgecolors=edge, linewidths=0.8)
            dots.set_label("modes" if trusted is None else name)
    if part == "modulus":
        ax.axhline(1, color=GUIDE, linewidth=1.0, zorder=0)
    ax.set(xlabel="step", ylabel=label)
    ax.set_title(f"{eigenvalues.shape[1]} modes followed over {len(steps)} spectra", fontsize=10)
    if there.any():
        ax.legend(fontsize=8, frameon=False)
    return ax


def draw_levels(real: Tensor, imag: Tensor, values: Tensor, name: str, ax: Axes | None) -> Axes:
    """Contours of a positive function over the complex plane, at powers of ten.

    Args:
        real: real parts of the grid's columns, ascending.
        imag: imaginary parts of its rows, ascending.
        values: shape ``(imag, real)``.
        name: what the values are.
        ax: where to draw; None for a new figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    ax = axes_for(ax, 5.6, 5)
    low, high = values.min().item(), values.max().item()
    least = max(low, 1e-12 * high)
    powers = range(math.ceil(math.log10(least)), math.floor(math.log10(high)) + 1) if high else ()
    levels = [level for level in (10.0**power for power in powers) if low < level < high]
    if low < high and len(levels) < 3:  # few powers of ten lie between: equal ratios instead
        levels = [least * (high / least) ** (share / 6) for share in range(1, 6)]
    if levels:
        lines = ax.contour(
            real.numpy(), imag.numpy(), values.numpy(), levels=levels, cmap="viridis"
        )
        ax.clabel(lines, fmt=lambda level: f"{level:.2g}", fontsize=8)
    _draw_circle(ax)
    ax.set(xlim=(real[0].item(), real[-1].item()), ylim=(imag[0].item(), imag[-1].item()))
    ax.set(xlabel="Re z", ylabel="Im z", aspect="equal")
    ax.set_title(name, fontsize=10)
    return ax


def _draw_circle(ax: Axes) -> None:
    """The unit circle and the axes through zero."""
    from matplotlib.patches import Circle

    ax.axhline(0, color=GUIDE, linewidth=0.5, alpha=0.5, zorder=0)
    ax.axvline(0, color=GUIDE, linewidth=0.5, alpha=0.5, zorder=0)
    ax.add_patch(Circle((0, 0), 1, fill=False, color=GUIDE, linewidth=1.0, zorder=1))


def _areas(values: Tensor, energies: Tensor | None) -> Tensor:
    """Marker areas: the strongest mode's is the largest."""
    if energies is None or not len(values):
        return torch.full((len(values),), 40.0)
    share = energies.detach().cpu().nan_to_num(0).clamp(min=0)
    return _LEAST + (_MOST - _LEAST) * (share / share.max().clamp(min=1e-300)).sqrt()
