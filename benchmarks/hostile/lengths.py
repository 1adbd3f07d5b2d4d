"""Hostile: how many layers run depends on the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.hostile.branches import CAUSE, Branching, signs
from benchmarks.hostile.case import Six, case

if TYPE_CHECKING:
    from torch import Tensor


class Loop(Six):
    """The last layer of the span runs as often as the data say."""

    def span(self, h: Tensor) -> Tensor:
        count = 1 if self.harmless else 1 + int(h.detach().abs().mean() * 4) % 3
        h = self.b[2](h)
        for _ in range(count):
            h = self.b[3](h)
        return h


class LoopInside(Six):
    """A layer inside the span does."""

    def span(self, h: Tensor) -> Tensor:
        count = 1 if self.harmless else 1 + int(h.detach().abs().mean() * 4) % 3
        for _ in range(count):
            h = self.b[2](h)
        return self.b[3](h)


class LoopBehind(Six):
    """A layer behind the span runs until the state is small."""

    def behind(self, h: Tensor) -> Tensor:
        for _ in range(5):
            if not self.harmless and float(h.detach().abs().max()) < 0.6:
                break
            h = self.b[4](h) * 0.9
        return h


class ExitBefore(Branching):
    """Some inputs never reach the span."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[0](x)
        return super().forward(x) if self.yes(h, -0.2) else self.b[5](h)


class ExitInside(Branching):
    """Some inputs leave in the span."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[2](self.b[1](self.b[0](x)))
        return self.b[5](self.b[4](self.b[3](h))) if self.yes(h) else self.b[5](h)


class ExitBehind(Branching):
    """Some inputs leave behind the span."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.span(self.b[1](self.b[0](x)))
        return self.b[5](self.b[4](h)) if self.yes(h) else self.b[5](h)


KINDS = (Loop, LoopInside, LoopBehind, ExitBefore, ExitInside, ExitBehind)
CASES = [case(CAUSE, kind, fresh=signs) for kind in KINDS]
