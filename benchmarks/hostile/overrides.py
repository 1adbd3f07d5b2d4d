"""Hostile: classes that give nn.Module's own manners another meaning."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.hostile.case import Case, Six, case, seeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.hostile.case import Inputs

CAUSE = "manners of the class are lost"


class ByProperty:
    """A setter keeps the inverse of what is set."""

    inverse = 1.0

    @property
    def temp(self) -> float:
        """The temperature."""
        return 1 / self.inverse

    @temp.setter
    def temp(self, value: float) -> None:
        self.inverse = 1 / value

    def act(self, h: Tensor) -> Tensor:
        """What the model, or in the twin a layer, does behind the span."""
        return h * self.inverse


class ByStore:
    """A property reads and sets an entry of a dictionary."""

    store: Any = None

    @property
    def temp(self) -> float:
        """The temperature."""
        return (self.store or {}).get("temp", 1.0)

    @temp.setter
    def temp(self, value: float) -> None:
        self.store = {"temp": value}

    def act(self, h: Tensor) -> Tensor:
        return h / self.temp


class ByGetattr:
    """An attribute that need not be there."""

    def act(self, h: Tensor) -> Tensor:
        return h / getattr(self, "temp", 1.0)


class ByHasattr:
    """The same, asked for first."""

    def act(self, h: Tensor) -> Tensor:
        return h / self.temp if hasattr(self, "temp") else h


class Intercepting:
    """``__setattr__`` turns what is set around."""

    factor = 1.0

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "temp":
            name, value = "factor", 1 / value
        super().__setattr__(name, value)

    def act(self, h: Tensor) -> Tensor:
        return h * self.factor


class Fallback:
    """``__getattr__`` answers for what was never set."""

    def __getattr__(self, name: str) -> Any:
        return 1.0 if name == "temp" else super().__getattr__(name)

    def act(self, h: Tensor) -> Tensor:
        return h / self.temp


class Static:
    """A static method that may be replaced."""

    @staticmethod
    def temp(h: Tensor | float) -> Any:
        """Nothing."""
        return h

    def act(self, h: Tensor) -> Tensor:
        return self.temp(h) if callable(self.temp) else h * self.temp


class OnContainer(Six):
    """An attribute of the container, which may be set later."""

    class Layers(nn.ModuleList):
        """A container of its own kind."""

    def build(self) -> None:
        self.b = self.Layers(self.b)

    def behind(self, h: Tensor) -> Tensor:
        return h / getattr(self.b, "temp", 1.0)


class OfLayer(Six):
    """An attribute of a layer that the model reads behind the span."""

    def build(self) -> None:
        self.b[4].factor = 1.0

    def behind(self, h: Tensor) -> Tensor:
        return h if self.harmless else h * self.b[4].factor


def tempered(model: nn.Module, inputs: Inputs) -> Any:
    """The temperature is set, on the layer that has one or on the model."""
    last = model.get_submodule("b.4")
    (last if hasattr(last, "act") else model).temp = 2.0
    return model(*inputs)


def on_class(model: nn.Module, inputs: Inputs) -> Any:
    """The class gets it for one call."""
    ByGetattr.temp = 2.0
    try:
        return model(*inputs)
    finally:
        del ByGetattr.temp


def on_static(model: nn.Module, inputs: Inputs) -> Any:
    """The static method is replaced on the class for one call."""
    was = vars(Static)["temp"]
    Static.temp = staticmethod(torch.sin)
    try:
        return model(*inputs)
    finally:
        Static.temp = was


def on_container(model: nn.Module, inputs: Inputs) -> Any:
    """The container gets it."""
    model.get_submodule("b").temp = 2.0
    return model(*inputs)


def on_layer(model: nn.Module, inputs: Inputs) -> Any:
    """The layer gets it."""
    model.get_submodule("b.4").factor = 2.0
    return model(*inputs)


def acting(kind: type, drive: Callable[..., Any] = tempered, name: str = "") -> Case:
    """The model itself acts so; in the twin a layer of its own does."""

    def make() -> nn.Module:
        return type(kind.__name__, (kind, Six), {"behind": kind.act})()

    def twin() -> nn.Module:
        model = Six()
        model.b[4] = type("Layer", (kind, nn.Module), {"forward": kind.act})()
        return model

    words = re.sub(r"(?<!^)(?=[A-Z])", " ", kind.__name__).lower()
    return Case(name or words, CAUSE, seeded(make), seeded(twin), drive=drive)


CASES = [
    *map(acting, (ByProperty, ByStore, ByGetattr, ByHasattr, Intercepting, Fallback, Static)),
    acting(ByGetattr, on_class, "by getattr, on the class"),
    acting(Static, on_static, "static, on the class"),
    case(CAUSE, OnContainer, twin=False, drive=on_container),
    case(CAUSE, OfLayer, twin=False, drive=on_layer),
]
