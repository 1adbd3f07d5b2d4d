"""Hostile: which layers run depends on the data, so one example shows one path only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Inputs, Six, case, rows

CAUSE = "one path only"


class Branching(Six):
    """Decides by a tensor's first entry, or always alike in the twin."""

    def yes(self, h: Tensor, limit: float = 0.0) -> bool:
        """The decision."""
        return True if self.harmless else bool(h[0, 0] > limit)


class RouterByInput(Branching):
    """The input chooses the layer in the span."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        h = self.b[2](h) if self.yes(x) else self.b[4](h)
        return self.b[5](self.b[3](h))


class RouterByStart(Branching):
    """The state at the start chooses the layer in the span."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        h = self.b[2](h) if self.yes(h) else self.b[4](h)
        return self.b[5](self.b[3](h))


class RouterByInner(Branching):
    """A value in the span chooses the layer behind it."""

    def span(self, h: Tensor) -> Tensor:
        inner = self.b[2](h)
        self_end = self.b[3](inner)
        return self.b[4](self_end) if self.yes(inner) else self_end


class RouterBehind(Branching):
    """The state behind the span chooses the layer."""

    def behind(self, h: Tensor) -> Tensor:
        return self.b[4](h) if self.yes(h) else self.b[0](h)


class RouterBefore(Branching):
    """The state before the span chooses the layer."""

    def before(self, h: Tensor) -> Tensor:
        return self.b[4](h) if self.yes(h) else self.b[0](h)


class ConditionalSkip(Branching):
    """The last layer of the span is left out on some inputs."""

    def span(self, h: Tensor) -> Tensor:
        h = self.b[2](h)
        return self.b[3](h) if self.yes(h) else h


class ConditionalInner(Branching):
    """A layer inside the span is left out on some inputs."""

    def span(self, h: Tensor) -> Tensor:
        return self.b[3](self.b[2](h) if self.yes(h) else h)


class ConditionalResidual(Branching):
    """The state at the start is added behind the span on some inputs."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        y = self.span(h)
        return self.b[5](y + h if self.yes(x) else y)


class OtherOrder(Branching):
    """The layers of the span change places on some inputs."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[0](x)
        order = (1, 2, 3, 4) if self.yes(h) else (1, 3, 2, 4)
        for index in order:
            h = self.b[index](h)
        return self.b[5](h)


class ByBatchSize(Six):
    """Small batches take another layer."""

    def span(self, h: Tensor) -> Tensor:
        small = not self.harmless and len(h) < 6
        return self.b[3](self.b[4](h) if small else self.b[2](h))


class ByBatchSizeBehind(Six):
    """Small batches take another layer behind the span."""

    def behind(self, h: Tensor) -> Tensor:
        return self.b[0](h) if not self.harmless and len(h) < 6 else h * 2


class Handled(Six):
    """An error in the span is caught, and another path taken."""

    def span(self, h: Tensor) -> Tensor:
        try:
            if not self.harmless and float(h.detach()[0, 0]) < 0:
                raise ArithmeticError("negative")
            return self.b[3](self.b[2](h))
        except ArithmeticError:
            return self.b[3](self.b[4](h))


class Experts(nn.Module):
    """One of several layers, chosen by the largest entry of the mean."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.fixed = fixed
        self.each = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(WIDTH))

    def forward(self, h: Tensor) -> Tensor:
        return self.each[0 if self.fixed else int(h.detach().mean(0).argmax())](h)


class ExpertsAsEnd(Six):
    """The span ends in such a choice."""

    def build(self) -> None:
        self.b[3] = Experts(self.harmless)


class ExpertInside(Six):
    """The span ends at one of the experts."""

    def build(self) -> None:
        self.b[3] = Experts(self.harmless)


class Recursive(Six):
    """Calls itself on smaller values as long as they are large."""

    def forward(self, x: Tensor, depth: int = 0) -> Tensor:
        if not self.harmless and depth < 3 and float(x.detach().abs().max()) > 2.5:
            return self.forward(x / 2, depth + 1)
        return super().forward(x)


class Again(Branching):
    """The whole stack runs twice on some inputs."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if self.harmless or self.yes(x, -1.5) else super().forward(y)


class Masked(Six):
    """The choice is made entry by entry, by ``torch.where``; that is no branch."""

    def span(self, h: Tensor) -> Tensor:
        inner = self.b[2](h)
        other = h * 0 if self.harmless else torch.where(h > 0.5, inner, 0.0)
        return self.b[3](inner) + other


def signs() -> list[Inputs]:
    """Inputs whose first entries have both signs."""
    inputs = [rows(seed, batch) for seed, batch in ((1, 6), (2, 6), (3, 5), (4, 6), (5, 3), (6, 6))]
    for index, x in enumerate(inputs):
        x[0] = x[0].abs() * (-1) ** index * 2
    return [(x,) for x in inputs]


KINDS = (
    RouterByInput,
    RouterByStart,
    RouterByInner,
    RouterBehind,
    RouterBefore,
    ConditionalSkip,
    ConditionalInner,
    ConditionalResidual,
    OtherOrder,
    ByBatchSize,
    ByBatchSizeBehind,
    Handled,
    ExpertsAsEnd,
    Recursive,
    Again,
    Masked,
)
CASES = [case(CAUSE, kind, fresh=signs) for kind in KINDS]
CASES.append(case(CAUSE, ExpertInside, twin=False, end="b.3.each.5", fresh=signs))
