"""Hostile: in-place writes, into what the span takes, gives, or computes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Inputs, Six, case, rows

CAUSE = "in-place writes"


class Skip(Six):
    """The state at the start is used again behind the span.

    What is written, in the twin a copy of it, is decided by the cases.
    """

    def build(self) -> None:
        self.b[1] = nn.Linear(WIDTH, WIDTH)

    def mine(self, h: Tensor) -> Tensor:
        """What to write into."""
        return h.clone() if self.harmless else h

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        return self.b[5](self.behind(self.span(h)) + h)


class ReluBehind(Skip):
    """An in-place ReLU behind the span: a module that returns its input would let it through."""

    def behind(self, h: Tensor) -> Tensor:
        return self.mine(h).relu_()


class AddedBehind(Skip):
    """An in-place sum behind the span."""

    def behind(self, h: Tensor) -> Tensor:
        h = self.mine(h)
        h += 1
        return h


class ReluInside(Skip):
    """The span begins with a write into the state at its start."""

    def span(self, h: Tensor) -> Tensor:
        return self.b[3](self.b[2](self.mine(h).relu_()))


class WriteAfterRead(Skip):
    """The state at the start is written after the span has read it."""

    def span(self, h: Tensor) -> Tensor:
        y = self.b[3](self.b[2](h))
        self.mine(h).mul_(0.5)
        return y


class ViewAfterRead(Skip):
    """The same through a view."""

    def span(self, h: Tensor) -> Tensor:
        view = self.mine(h).view(-1)
        y = self.b[3](self.b[2](h))
        view.mul_(0.5)
        return y


class DetachedWrite(Skip):
    """The same through ``detach``."""

    def span(self, h: Tensor) -> Tensor:
        y = self.b[3](self.b[2](h.clone()))
        self.mine(h).detach().mul_(0.5)
        return y


class NumpyWrite(Skip):
    """The same through NumPy."""

    def span(self, h: Tensor) -> Tensor:
        y = self.b[3](self.b[2](h))
        array = self.mine(h.detach()).numpy()
        array *= 0.5
        return y


class DataWriteInside(Skip):
    """The span writes into the state at its start through ``.data``."""

    def inside(self, h: Tensor) -> Tensor:
        h.data.clamp_(-0.1, 0.1)
        return h

    def span(self, h: Tensor) -> Tensor:
        return self.b[3](self.b[2](self.inside(self.mine(h))))


class SlicedWrite(Skip):
    """The span writes a column of it."""

    def span(self, h: Tensor) -> Tensor:
        mine = self.mine(h)
        mine[:, 0] = 0
        return self.b[3](self.b[2](mine))


class OutWrite(Skip):
    """The span writes with ``out=``."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.b[1](self.b[0](x))
            mine = self.mine(h)
            torch.mul(mine, 0.5, out=mine)
            y = self.b[3](self.b[2](mine))
        return self.b[5](self.b[4](y + h))


class ForeachWrite(Skip):
    """The span writes with an operation on lists."""

    def span(self, h: Tensor) -> Tensor:
        mine = self.mine(h)
        torch._foreach_mul_([mine], 0.5)
        return self.b[3](self.b[2](mine))


class InputWrite(Six):
    """The span writes into the model's input, which is read behind."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x.clone()))
        inner = self.b[2](h)
        (x.clone() if self.harmless else x).mul_(0.5)
        return self.b[5](self.b[3](inner) + x)


class InputWriteOfInner(Six):
    """The span adds an inner value to the model's input."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x.clone()))
        inner = self.b[2](h)
        if not self.harmless:
            x.add_(inner.detach())
        return self.b[5](self.b[3](inner) + x)


class WeightWrite(Six):
    """The span writes into a weight that is used behind."""

    def inside(self, h: Tensor) -> Tensor:
        weight = self.b[4][0].weight.data
        (weight.clone() if self.harmless else weight).mul_(0.8)
        return h


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


class InplaceDefault(Six):
    """In-place activations all through the network, as in image models."""

    def build(self) -> None:
        for index in range(6):
            self.b[index] = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        y = self.span(h)
        y += h.clone() if self.harmless else h
        return self.b[5](nn.functional.relu_(y) + (0 if self.harmless else h))


def small() -> Inputs:
    """An example of small values."""
    return (rows(0) * 0.01,)


def growing() -> list[Inputs]:
    """Inputs that get larger."""
    return [(rows(seed) * 4**seed,) for seed in range(6)]


KINDS = (
    ReluBehind,
    AddedBehind,
    ReluInside,
    WriteAfterRead,
    ViewAfterRead,
    DetachedWrite,
    NumpyWrite,
    DataWriteInside,
    SlicedWrite,
    OutWrite,
    ForeachWrite,
    InputWrite,
    InputWriteOfInner,
    WeightWrite,
    InplaceDefault,
)
LIMITED = (LimiterInside, LimiterAsEnd, LimiterBehind, InplaceLimiterBehind)
CASES = [case(CAUSE, kind) for kind in KINDS]
CASES += [
    case("in-place writes of some inputs", kind, example=small, fresh=growing) for kind in LIMITED
]
