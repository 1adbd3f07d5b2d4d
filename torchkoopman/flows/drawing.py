"""A flow in the plane as streamlines, with its fixed points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from torchkoopman.pictures import GUIDE, MAIN, OTHER, axes_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GRID = 41
_ROOM = 0.15
"""Share of the starts' extent that is left around them."""


class Moving(Protocol):
    """What has a velocity."""

    def velocity(self, states: Tensor) -> Tensor:
        """Of each state."""
        ...


def draw_field(
    flow: Moving, points: Tensor, stable: Tensor, starts: Tensor, ax: Axes | None
) -> Axes:
    """Streamlines over the starts' extent; points that attract are filled.

    Raises:
        ValueError: states of more or fewer numbers than two.
    """
    if starts.flatten(1).shape[1] != 2:
        raise ValueError(
            f"plot() draws states of two numbers; these have {starts.flatten(1).shape[1]}."
        )
    ax = axes_for(ax, 5.0, 5.0)
    flat = torch.cat([starts.flatten(1), points.flatten(1)]).cpu()
    low, high = flat.amin(0), flat.amax(0)
    room = _ROOM * (high - low).clamp_min(1e-6)
    x, y = (
        torch.linspace(a, b, _GRID, dtype=torch.float64)
        for a, b in zip((low - room).tolist(), (high + room).tolist(), strict=True)
    )
    plane = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, *starts.shape[1:])
    speed = flow.velocity(plane.to(starts)).cpu().double().view(_GRID, _GRID, 2)
    ax.streamplot(
        x.numpy(), y.numpy(), speed[..., 0].numpy(), speed[..., 1].numpy(),
        color=GUIDE, linewidth=0.6, arrowsize=0.7, density=1.2,
    )  # fmt: skip
    for chosen, face, edge, label in (
        (stable, MAIN, MAIN, "attracts"),
        (~stable, "none", OTHER, "does not"),
    ):
        own = points[chosen].flatten(1).cpu().double().numpy()
        if len(own):
            looks: dict[str, Any] = {"facecolors": face, "edgecolors": edge, "label": label}
            ax.scatter(own[:, 0], own[:, 1], s=45, zorder=3, linewidths=1.5, **looks)
    ax.set(xlabel="first coordinate", ylabel="second coordinate")
    if len(points):
        ax.legend(fontsize=8, loc="upper right")
    return ax
