"""What the looks of a monitor have said until now, a row for each."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from torchkoopman.pictures import CLASSES, axes_for
from torchkoopman.tables import Table, Tabular

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

    from torchkoopman.flows.looks import FlowLook


@dataclass(frozen=True)
class FlowHistory(Tabular):
    """Attractors through a training; print it.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> starts = {"noise": torch.randn(20, 2)}
        >>> monitor = tk.flows.FlowMonitor(tk.flows.Flow, starts, log_every=5)
        >>> with monitor.attach(model):
        ...     for _ in range(10):
        ...         monitor.step()  # after optimizer.step()
        >>> monitor.history.steps.tolist()
        [0, 5, 10]
    """

    names: tuple[str, ...]
    """Of the sets of starts."""
    steps: Tensor
    """Of the training, ``(looks,)``."""
    attractors: Tensor
    """Number that each set leads to, ``(looks, names)``."""
    converged: Tensor
    """Share of each set's starts; float64, ``(looks, names)``."""
    diverged: Tensor
    """Likewise."""
    chamfer: Tensor
    """Between the sets' attractors, in spreads; float64, ``(looks, names, names)``."""
    living: Tensor
    """Attractors in all; ``(looks,)``."""
    born: Tensor
    """Of these, those that are new."""
    gone: Tensor
    """Those of the look before that live no more."""
    moved: Tensor
    """Median distance of the others from where they were, in spreads; NaN if there are none."""
    radius: Tensor
    """Largest of the attractors' radii; NaN without an attractor."""
    norm: Tensor
    """Largest of their norms."""

    @classmethod
    def empty(cls, names: tuple[str, ...]) -> Self:
        """Before the first look."""
        whole, real = torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.float64)
        each, of_each = whole.view(0, 1).expand(0, len(names)), real.view(0, 1)
        of_each = of_each.expand(0, len(names))
        pairs = real.view(0, 1, 1).expand(0, len(names), len(names))
        return cls(
            names, whole, each, of_each, of_each, pairs, whole, whole, whole, real, real, real
        )

    def after(self, look: FlowLook) -> Self:
        """With one look more."""
        stayed = look.moved[~look.moved.isnan()]
        rows: dict[str, Any] = {
            "steps": look.step,
            "attractors": look.reached.sum(1),
            "converged": look.converged,
            "diverged": look.diverged,
            "chamfer": look.chamfer,
            "living": len(look.tracks),
            "born": len(look.born),
            "gone": len(look.gone),
            "moved": stayed.median() if len(stayed) else torch.nan,
            "radius": look.radii.max() if len(look.radii) else torch.nan,
            "norm": look.norms.max() if len(look.norms) else torch.nan,
        }
        told = {
            name: torch.cat([known, torch.as_tensor(rows[name])[None].to(known)])
            for name, known in self.tensors().items()
        }
        return type(self)(look.names, **told)

    def tensors(self) -> dict[str, Tensor]:
        """Name → values, of all but the names."""
        return {each.name: getattr(self, each.name) for each in fields(self)[1:]}

    @classmethod
    def of_tensors(cls, names: tuple[str, ...], tensors: Mapping[str, Tensor]) -> Self:
        """The inverse of :meth:`tensors`.

        Raises:
            ValueError: shapes that do not belong together.
        """
        like = cls.empty(names).tensors()
        count = len(tensors["steps"])
        for name, one in like.items():
            if tensors[name].shape != (count, *one.shape[1:]) or tensors[name].dtype != one.dtype:
                raise ValueError(f"{name} of {count} looks has shape {tuple(tensors[name].shape)}")
        return cls(names, **{name: tensors[name] for name in like})

    def plot(self, ax: Axes | None = None) -> Axes:
        """How many attractors each set of starts leads to, through the training.

        Args:
            ax: matplotlib axes to draw on; None for a new figure.

        Raises:
            ImportError: matplotlib is not installed (the extra ``torchkoopman[plot]``).
        """
        ax = axes_for(ax)
        for k, name in enumerate(self.names):
            colour = CLASSES[k % len(CLASSES)]
            counts = self.attractors[:, k].numpy()
            ax.plot(self.steps.numpy(), counts, "o-", color=colour, markersize=4, label=name)
        ax.set(xlabel="steps of the training", ylabel="attractors")
        ax.set_ylim(bottom=0)
        ax.legend(fontsize=8)
        return ax

    def table(self) -> Table:
        """A row for each look."""
        head = ["step", *(f"from {name}" for name in self.names)]
        head += [f"{name} converged" for name in self.names]
        head += ["born", "gone", "moved", "radius", "norm"]
        rows = []
        for k, step in enumerate(self.steps.tolist()):
            rows.append(
                [
                    str(step),
                    *(str(count) for count in self.attractors[k].tolist()),
                    *(f"{share:.1%}" for share in self.converged[k].tolist()),
                    str(int(self.born[k])),
                    str(int(self.gone[k])),
                    *(_number(each[k].item()) for each in (self.moved, self.radius, self.norm)),
                ]
            )
        return Table(head, rows)


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.4f}"
