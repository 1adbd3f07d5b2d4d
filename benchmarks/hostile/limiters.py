"""Hostile: in-place writes that only some inputs cause."""

from __future__ import annotations

from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Inputs, case, rows
from benchmarks.hostile.writes import Skip


class Limiter(nn.Module):
    """Writes into its input, but only where that is large."""

    def __init__(self, copies: bool) -> None:
        super().__init__()
        self.copies = copies

    def forward(self, h: Tensor) -> Tensor:
        if self.copies:
            h = h.clone()
        if float(h.detach().abs().max()) > 2:
            h.clamp_(-0.5, 0.5)
        return h * 2


class LimiterInside(Skip):
    """Such a layer in the span."""

    def build(self) -> None:
        super().build()
        self.b[2] = Limiter(self.harmless)


class LimiterAsEnd(Skip):
    """Such a layer at the end of the span, after the identity."""

    def build(self) -> None:
        super().build()
        self.b[2], self.b[3] = nn.Identity(), Limiter(self.harmless)


class LimiterBehind(Skip):
    """Such a layer behind the span, reading the state at the start."""

    def build(self) -> None:
        super().build()
        self.b[4] = Limiter(self.harmless)

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        y = self.span(h)
        return self.b[5](self.b[4](h) + y + h)


class InplaceLimiterBehind(Skip):
    """Such a layer behind the span, reading the span's output."""

    def build(self) -> None:
        super().build()
        self.b[3], self.b[4] = nn.Linear(WIDTH, WIDTH), Limiter(self.harmless)

    def behind(self, h: Tensor) -> Tensor:
        return self.b[4](h * 3) + h


def small() -> Inputs:
    """An example of small values."""
    return (rows(0) * 0.01,)


def growing() -> list[Inputs]:
    """Inputs that get larger."""
    return [(rows(seed) * 4**seed,) for seed in range(6)]


LIMITED = (LimiterInside, LimiterAsEnd, LimiterBehind, InplaceLimiterBehind)


CASES = [
    case("in-place writes of some inputs", kind, example=small, fresh=growing) for kind in LIMITED
]
