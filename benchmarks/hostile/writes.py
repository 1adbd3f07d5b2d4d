"""Hostile: in-place writes, into what the span takes, gives, or computes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Six, case

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
CASES = [case(CAUSE, kind) for kind in KINDS]
