"""Hostile: the forward sets attributes of its layers before it calls them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Six, case

CAUSE = "conditioning set as attribute"


class Film(nn.Linear):
    """A layer whose scale is set from outside."""

    scale: Any = 1.0

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h) * self.scale


class Conditioned(Six):
    """The forward sets the scale of a layer behind the span from the input."""

    place = 4

    def build(self) -> None:
        self.b[self.place] = Film(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        self.b[self.place].scale = 2.0 if self.harmless else x.detach().mean(0)
        return super().forward(x)


class ConditionedBefore(Conditioned):
    """The same before the span."""

    place = 0


class ConditionedInside(Conditioned):
    """The same in the span: what it does there is replaced, so this is no harm."""

    place = 2


class ConditionedByState(Six):
    """The scale comes from a value in the span."""

    def build(self) -> None:
        self.b[4] = Film(WIDTH, WIDTH)

    def inside(self, h: Tensor) -> Tensor:
        self.b[4].scale = 2.0 if self.harmless else h.detach().mean(0)
        return h


class Timestep(Six):
    """Every layer of the model is told the time of the call."""

    def build(self) -> None:
        self.b[0], self.b[4] = Film(WIDTH, WIDTH), Film(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        time = 1.0 if self.harmless else float(x.detach().abs().mean())
        for each in (self.b[0], self.b[4]):
            each.scale = time
        return super().forward(x)


KINDS = (Conditioned, ConditionedBefore, ConditionedInside, ConditionedByState, Timestep)
CASES = [case(CAUSE, kind) for kind in KINDS]
