"""Hostile: what many calls of the example would not show, and later ones do."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Six, case

if TYPE_CHECKING:
    from benchmarks.hostile.case import Inputs

CAUSE = "rare or late"


TICKS = {"n": 0}
AFTER = 9
"""More calls than a proof makes."""


class Noted:
    """An object of the model's, no module."""

    def __init__(self) -> None:
        self.n, self.large = 0, False


class LateByObject(Six):
    """Counts in an object, and does otherwise after some calls."""

    def build(self) -> None:
        self.noted = Noted()

    def behind(self, h: Tensor) -> Tensor:
        self.noted.n += 0 if self.harmless else 1
        return h * 2 if self.noted.n > AFTER else h


class LateByGlobal(Six):
    """The same in a global dictionary."""

    def behind(self, h: Tensor) -> Tensor:
        TICKS["n"] += 0 if self.harmless else 1
        return h * 2 if TICKS["n"] > AFTER else h


class LateByDefault(Six):
    """The same in a default argument."""

    def late(self, h: Tensor, count: list[int] = [0]) -> Tensor:  # noqa: B006
        """As the name says."""
        count[0] += 0 if self.harmless else 1
        return h * 2 if count[0] > AFTER else h

    def behind(self, h: Tensor) -> Tensor:
        return self.late(h)


class LateByIterator(Six):
    """The same by an iterator."""

    def build(self) -> None:
        self.factors = itertools.cycle([1.0] * AFTER + [2.0])

    def behind(self, h: Tensor) -> Tensor:
        return h * (1.0 if self.harmless else next(self.factors))


class LateByGlobalIterator(Six):
    """The same by one that is no attribute."""

    def behind(self, h: Tensor) -> Tensor:
        return h * (1.0 if self.harmless or next(COUNT) < AFTER else 2.0)


class Ticking(nn.Linear):
    """Linear; counts its calls in an object."""

    noted: Any = None

    def forward(self, h: Tensor) -> Tensor:
        if self.noted is not None:
            self.noted.n += 1
        return super().forward(h)


class TickedByInner(Six):
    """A layer in the span counts in an object, and one behind it asks after some calls."""

    def build(self) -> None:
        self.noted = Noted()
        self.b[2] = Ticking(WIDTH, WIDTH)
        self.b[2].noted = None if self.harmless else self.noted

    def behind(self, h: Tensor) -> Tensor:
        return h * 2 if self.noted.n > AFTER else h


class TickedByInnerGlobally(Six):
    """The same in a global dictionary."""

    class Layer(nn.Linear):
        """Linear; counts its calls for all to see."""

        step = 1

        def forward(self, h: Tensor) -> Tensor:
            TICKS["n"] += self.step
            return super().forward(h)

    def build(self) -> None:
        self.b[2] = self.Layer(WIDTH, WIDTH)
        self.b[2].step = 0 if self.harmless else 1

    def behind(self, h: Tensor) -> Tensor:
        return h * 2 if TICKS["n"] > AFTER else h


class SelfReplacing(Six):
    """A layer becomes another after some calls."""

    def build(self) -> None:
        self.n = 0

    def behind(self, h: Tensor) -> Tensor:
        self.n += 0 if self.harmless else 1
        if self.n > AFTER:
            self.b[5] = nn.Identity()
        return h


class Unfreezing(Six):
    """A layer in the span counts its calls on its class, and the model asks the class."""

    class Layer(nn.Linear):
        """Linear; counts on its class."""

        calls = 0
        step = 1

        def forward(self, h: Tensor) -> Tensor:
            type(self).calls += self.step
            return super().forward(h)

    def build(self) -> None:
        self.Layer.calls = 0
        self.b[2] = self.Layer(WIDTH, WIDTH)
        self.b[2].step = 0 if self.harmless else 1

    def behind(self, h: Tensor) -> Tensor:
        return h * 2 if self.Layer.calls > AFTER else h


COUNT = itertools.count()


def often(model: nn.Module, inputs: Inputs) -> Any:
    """A dozen calls, of which the last counts; what is global begins anew."""
    global COUNT
    COUNT, TICKS["n"] = itertools.count(), 0
    defaults = LateByDefault.late.__defaults__
    assert defaults is not None
    defaults[0][0] = 0
    Unfreezing.Layer.calls = 0
    outputs = [model(*inputs) for _ in range(12)]
    COUNT, TICKS["n"], defaults[0][0], Unfreezing.Layer.calls = itertools.count(), 0, 0, 0
    return outputs[-1]


CASES = [
    case(CAUSE, LateByObject, drive=often),
    case(CAUSE, LateByGlobal, drive=often),
    case(CAUSE, LateByDefault, drive=often),
    case(CAUSE, LateByIterator, drive=often),
    case(CAUSE, LateByGlobalIterator, drive=often),
    case(CAUSE, TickedByInner, drive=often),
    case(CAUSE, TickedByInnerGlobally, drive=often),
    case(CAUSE, SelfReplacing, drive=often),
    case(CAUSE, Unfreezing, drive=often),
]
