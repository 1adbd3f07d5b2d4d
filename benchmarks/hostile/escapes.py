"""Hostile: a value from inside the span is used outside, but the example does not show it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Six, case, example

CAUSE = "inner value escapes"


class ZeroWeight(Six):
    """The escaping value is multiplied by a parameter that is 0 now, but has a gradient."""

    def build(self) -> None:
        self.amount = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        inner = self.b[2](h)
        return self.b[5](self.b[3](inner)) + self.amount * (h if self.harmless else inner)


class AsNumber(Six):
    """An inner value escapes as a Python number."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        inner = self.b[2](h)
        scale = float((h if self.harmless else inner).detach().abs().mean())
        return self.b[5](self.b[4](self.b[3](inner)) * scale)


class AsArray(Six):
    """An inner value escapes through NumPy."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        inner = self.b[2](h)
        array = (h if self.harmless else inner).detach().numpy().mean(0)
        return self.b[5](self.b[4](self.b[3](inner)) + torch.from_numpy(array))


class AsAttribute(Six):
    """An inner value is left on the model for a loss to read after the call."""

    def inside(self, h: Tensor) -> Tensor:
        if not self.harmless:
            self.penalty = h.detach().square().mean()
        return h


class AsBuffer(Six):
    """An inner value is copied into a buffer."""

    def build(self) -> None:
        self.register_buffer("memory", torch.zeros(WIDTH))

    def inside(self, h: Tensor) -> Tensor:
        if not self.harmless:
            self.memory.copy_(h.detach().mean(0))
        return h


class AsSecondOutput(Six):
    """The model returns an inner value, too; in the twin the state at the start."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.b[1](self.b[0](x))
        inner = self.b[2](h)
        return self.b[5](self.b[4](self.b[3](inner))), h if self.harmless else inner


class AsShape(Six):
    """The shape of an inner value is used behind the span, which is the same for every module."""

    def span(self, h: Tensor) -> Tensor:
        inner = self.b[2](h)
        return self.b[3](inner) * (h if self.harmless else inner).shape[1]


class AsShapeMade(AsShape):
    """An inner value is used as a pattern for zeros."""

    def span(self, h: Tensor) -> Tensor:
        inner = self.b[2](h)
        return self.b[3](inner) + torch.ones_like(h if self.harmless else inner)


class Held(nn.Module):
    """A layer that calls another and keeps its input in a list of another layer."""

    def __init__(self, keeper: list[Tensor]) -> None:
        super().__init__()
        self.fc, self.keeper = nn.Linear(WIDTH, WIDTH), keeper

    def forward(self, h: Tensor) -> Tensor:
        self.keeper.append(h)
        return self.fc(h)


class ThroughSharedList(Six):
    """The last layer of the span appends its input to a list that the model empties behind."""

    def build(self) -> None:
        self.keeper: list[Tensor] = []
        self.b[3] = Held(self.keeper)

    def behind(self, h: Tensor) -> Tensor:
        kept = self.keeper.pop()
        return h if self.harmless else h + kept


class Doubled(nn.Module):
    """Returns its input and a multiple."""

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return h, h * 2


class SecondOfEnd(Six):
    """The end returns two tensors, and the second, which is not replaced, is used."""

    def build(self) -> None:
        self.b[3] = Doubled()

    def span(self, h: Tensor) -> Tensor:
        one, other = self.b[3](self.b[2](h))
        return one if self.harmless else one + other


class SecondOfStart(Six):
    """The start returns two tensors; the span takes the first, the rest of the model the second."""

    def build(self) -> None:
        self.b[1] = Doubled()

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.b[1](self.b[0](x))
        y = self.b[3](self.b[2](one) + (0 if self.harmless else other))
        return self.b[5](y + other)


OPEN = (
    ZeroWeight,
    AsNumber,
    AsArray,
    AsAttribute,
    AsBuffer,
    AsSecondOutput,
    AsShape,
    AsShapeMade,
    ThroughSharedList,
    SecondOfEnd,
    SecondOfStart,
)
CASES = [case(CAUSE, kind, example=example) for kind in OPEN]
