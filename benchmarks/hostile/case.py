"""One hostile case: a network that is hard to edit without changing what it computes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

WIDTH = 8
Inputs = tuple[Any, ...] | dict[str, Any]
"""Positional arguments of a call, or keyword arguments."""
Make = Callable[[], nn.Module]


def rows(seed: int, batch: int = 6) -> Tensor:
    """Normal numbers, always the same for a seed."""
    return torch.randn(batch, WIDTH, generator=torch.Generator().manual_seed(seed))


def example() -> Inputs:
    """What the swap is given."""
    return (rows(0),)


def fresh() -> list[Inputs]:
    """Six other inputs: shifted, larger, smaller, of another batch size, and two more."""
    shapes = (rows(1) + 2, rows(2) * 4, rows(3) * 0.1, rows(4, batch=5), rows(5), rows(6) - 1)
    return [(x,) for x in shapes]


@dataclass(frozen=True)
class Case:
    """A network, its span, and how it is called."""

    name: str
    cause: str
    """Why an edited model may compute something else."""
    make: Make
    """The network; the same weights each time."""
    twin: Make | None = None
    """The smallest change that makes the construction harmless; it must come out exact."""
    start: str = "b.1"
    end: str = "b.3"
    example: Callable[[], Inputs] = example
    fresh: Callable[[], list[Inputs]] = fresh
    train: bool = False
    """In training mode, from the start."""
    drive: Callable[[nn.Module, Inputs], Any] | None = None
    """One use of the model, where it is more than a call: attributes set between calls, say."""
    around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    """What is in force during everything, the swap included."""
    shared: Any = field(default=None, hash=False)
    """Containers outside the model that it writes into."""
    differentiable: bool = True
    """Whether the inputs require gradients."""

    def harmless(self) -> Case:
        """The twin as a case of its own."""
        assert self.twin is not None
        return replace(self, name=f"{self.name}, harmless", make=self.twin, twin=None)


class Six(nn.Module):
    """Six layers in a row; the span is usually from ``b.1`` to ``b.3``.

    A case adds something between the layers, and something harmless in its twin.
    """

    def __init__(self, harmless: bool = False) -> None:
        super().__init__()
        self.harmless = harmless
        self.b = nn.ModuleList(layer() for _ in range(6))
        self.build()

    def build(self) -> None:
        """More parts and hooks."""

    def before(self, h: Tensor) -> Tensor:
        """Between the first layer and the span."""
        return h

    def inside(self, h: Tensor) -> Tensor:
        """In the span, before its last layer."""
        return h

    def behind(self, h: Tensor) -> Tensor:
        """Two layers after the span."""
        return h

    def span(self, h: Tensor) -> Tensor:
        """From the output of ``b.1`` to that of ``b.3``."""
        y: Tensor = self.b[3](self.inside(self.b[2](h)))
        return y

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.before(self.b[0](x)))
        y: Tensor = self.b[5](self.behind(self.b[4](self.span(h))))
        return y


def layer() -> nn.Module:
    """Linear and tanh."""
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())


def seeded(make: Make) -> Make:
    """The same weights each time, and no trace in the global random state."""

    def made() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return make()

    return made


def case(cause: str, kind: Callable[..., nn.Module], twin: bool = True, **more: Any) -> Case:
    """A case by its class, which takes ``harmless=True`` where there is a twin."""
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", kind.__name__).lower().replace("_", " ")
    harmless = seeded(lambda: kind(harmless=True)) if twin else None
    return Case(more.pop("name", words), cause, seeded(lambda: kind()), harmless, **more)
