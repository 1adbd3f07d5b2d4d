"""A phase portrait: a flow's velocity, fixed and slow points, orbits, and read-out directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from torchkoopman.pictures import CLASSES, GUIDE, MAIN, OTHER, axes_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GRID = 41
_ROOM = 0.15
"""Share of the starts' extent that is left around them."""
_ARROW = 0.8
"""Length of a read-out direction over the starts' largest distance from their mean."""


class Moving(Protocol):
    """What has a velocity and orbits."""

    def velocity(self, states: Tensor) -> Tensor:
        """Of each state."""
        ...

    def orbit(self, starts: Tensor, steps: int) -> Tensor:
        """``(1 + steps, n, …)``."""
        ...


@dataclass(frozen=True)
class Portrait:
    """What is drawn over the velocity; all are states ``(n, …)``."""

    starts: Tensor
    points: Tensor
    stable: Tensor
    """Which points attract."""
    slow: Tensor


@dataclass(frozen=True)
class Plane:
    """Two axes through a centre: the coordinates themselves, or principal axes of the starts."""

    centre: Tensor
    axes: Tensor
    """``(2, k)``, orthonormal."""
    labels: tuple[str, str]

    @classmethod
    def of(cls, starts: Tensor) -> Plane:
        """The coordinates of states of two numbers, else the leading principal axes.

        Raises:
            ValueError: states of one number.
        """
        flat = starts.flatten(1).cpu().double()
        if flat.shape[1] < 2:
            raise ValueError(
                "plot() draws states of two numbers or more; these have 1. Draw the map itself, "
                "f(x) over x."
            )
        if flat.shape[1] == 2:
            axes = torch.eye(2, dtype=torch.float64)
            return cls(torch.zeros_like(flat[0]), axes, ("first coordinate", "second coordinate"))
        centre = flat.mean(0)
        _, sizes, axes = torch.linalg.svd(flat - centre, full_matrices=False)
        shares = sizes.square() / sizes.square().sum().clamp_min(torch.finfo(sizes.dtype).tiny)
        if len(axes) < 2:  # one start has no principal axes
            axes, shares = torch.eye(flat.shape[1], dtype=torch.float64), torch.zeros(2)
        first, second = (
            f"{name} principal axis of the starts, {share:.0%} of the variance"
            for name, share in zip(("first", "second"), shares[:2].tolist(), strict=True)
        )
        return cls(centre, axes[:2], (first, second))

    def __call__(self, states: Tensor) -> Tensor:
        """``(…, n, *shape)`` with so many axes in front as states have, → ``(…, n, 2)``."""
        return (states.cpu().double() - self.centre) @ self.axes.T


def draw_field(
    flow: Moving,
    portrait: Portrait,
    ax: Axes | None,
    orbits: int,
    steps: int,
    readout: Tensor | None,
) -> Axes:
    """Streamlines where states have two numbers; of more, all is seen along the principal axes.

    Raises:
        ValueError: states of one number, options out of range, or a read-out of other states.
    """
    starts = portrait.starts
    plane = Plane.of(starts)
    width = starts[0].numel()
    if orbits < 0 or steps < 1:
        raise ValueError(
            f"plot() got orbits={orbits} and steps={steps}; give 0 orbits or more, of 1 step or "
            "more."
        )
    if readout is not None and (readout.ndim != 2 or readout.shape[1] != width):
        raise ValueError(
            f"plot() got a read-out of shape {tuple(readout.shape)} for states of {width} numbers; "
            "give the weight of a linear read-out, (outputs, states)."
        )
    ax = axes_for(ax, 5.0, 5.0)
    if width == 2:
        _stream(flow, portrait, ax)
    if orbits:
        told = flow.orbit(starts[:orbits], steps)
        for orbit in plane(told.flatten(2)).unbind(1):
            ax.plot(*orbit.T.numpy(), color=CLASSES[2], linewidth=0.8, alpha=0.6, zorder=2)
    marks: list[tuple[Tensor, dict[str, Any]]] = [
        (portrait.points[portrait.stable], {"facecolors": MAIN, "label": "attracts", "s": 45}),
        (
            portrait.points[~portrait.stable],
            {"facecolors": "none", "edgecolors": OTHER, "label": "does not attract", "s": 45},
        ),
        (portrait.slow, {"color": CLASSES[3], "marker": "x", "label": "slow", "s": 25}),
    ]
    for states, looks in marks:
        if len(states):
            ax.scatter(*plane(states.flatten(1)).T.numpy(), zorder=3, linewidths=1.5, **looks)
    if readout is not None:
        _arrows(readout, starts.flatten(1), plane, ax)
    ax.set(xlabel=plane.labels[0], ylabel=plane.labels[1])
    if len(portrait.points) or len(portrait.slow):
        ax.legend(fontsize=8, loc="upper right")
    return ax


def _stream(flow: Moving, portrait: Portrait, ax: Axes) -> None:
    """The velocity over the starts' extent."""
    starts = portrait.starts
    flat = torch.cat([starts.flatten(1), portrait.points.flatten(1)]).cpu()
    low, high = flat.amin(0), flat.amax(0)
    room = _ROOM * (high - low).clamp_min(1e-6)
    x, y = (
        torch.linspace(a, b, _GRID, dtype=torch.float64)
        for a, b in zip((low - room).tolist(), (high + room).tolist(), strict=True)
    )
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, *starts.shape[1:])
    speed = flow.velocity(grid.to(starts)).cpu().double().view(_GRID, _GRID, 2)
    ax.streamplot(
        x.numpy(), y.numpy(), speed[..., 0].numpy(), speed[..., 1].numpy(),
        color=GUIDE, linewidth=0.6, arrowsize=0.7, density=1.2,
    )  # fmt: skip


def _arrows(readout: Tensor, starts: Tensor, plane: Plane, ax: Axes) -> None:
    """Along which each output grows fastest, from the mean of the starts."""
    flat = starts.cpu().double()
    centre = flat.mean(0)
    length = _ARROW * (flat - centre).norm(dim=1).max().item()
    directions = readout.detach().cpu().double()
    directions = directions / directions.norm(dim=1, keepdim=True).clamp_min(1e-300)
    (x, y), ways = plane(centre[None])[0].tolist(), length * directions @ plane.axes.T
    for number, (right, up) in enumerate(ways.tolist()):
        tip = (x + right, y + up)
        look = {"arrowstyle": "->", "linewidth": 1.5, "color": "black"}
        ax.annotate("", tip, (x, y), arrowprops=look, zorder=4)
        ax.annotate(f"output {number}", tip, fontsize=8, zorder=4)
