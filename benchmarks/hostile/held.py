"""Hostile: models that hold what is outside of them, and it changes after the swap."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Six, case

if TYPE_CHECKING:
    from benchmarks.hostile.case import Inputs

CAUSE = "the world changes after the swap"


class Registered(Six):
    """The model finds its layer by name in a registry of weak references."""

    def build(self) -> None:
        self.layers = weakref.WeakValueDictionary({"last": self.b[4]})

    def behind(self, h: Tensor) -> Tensor:
        return h if self.harmless else self.layers["last"](h)


class Closed(Six):
    """A variable of a closure, which another function sets."""

    def build(self) -> None:
        amount = 1.0

        def multiply(h: Tensor) -> Tensor:
            return h * amount

        def choose(value: float) -> None:
            nonlocal amount
            amount = value

        self.multiply = multiply
        self.b[5].choose = choose

    def behind(self, h: Tensor) -> Tensor:
        return self.multiply(h)


class WeakParent(Six):
    """A layer reads an attribute of the model through a weak reference."""

    class Child(nn.Linear):
        """Linear, scaled as the parent says."""

        parent: Any = None

        def forward(self, h: Tensor) -> Tensor:
            h = super().forward(h)
            return h if self.parent is None else h * self.parent().temp

    def build(self) -> None:
        self.temp = 1.0
        self.b[4] = self.Child(WIDTH, WIDTH)
        self.b[4].parent = weakref.ref(self)


def chosen(model: nn.Module, inputs: Inputs) -> Any:
    """The closure's variable is set by the function that the model offers."""
    choose = model.get_submodule("b.5").choose
    choose(3.0)
    try:
        return model(*inputs)
    finally:
        choose(1.0)


def tempered(model: nn.Module, inputs: Inputs) -> Any:
    """The parent's attribute is set."""
    model.temp = 2.0
    return model(*inputs)


CASES = [
    case(CAUSE, Closed, twin=False, drive=chosen),
    case(CAUSE, WeakParent, twin=False, drive=tempered),
    case(CAUSE, Registered),
]
