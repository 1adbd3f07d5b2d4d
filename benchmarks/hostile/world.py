"""Hostile: what was read of the world is written into later, and models are changed unseen."""

from __future__ import annotations

import functools
from array import array
from collections import ChainMap, UserDict, deque
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.hostile.ambient import Outside, Reading
from benchmarks.hostile.case import WIDTH, Case, Six, case, rows, seeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.hostile.case import Inputs

CAUSE = "the world is written into"


class Kind(type):
    """Classes with a property of their own."""

    value = 1.0

    @property
    def told(cls) -> float:
        """What the class tells."""
        return cls.value


class Holder(metaclass=Kind):
    """An object whose methods read what it holds."""

    __slots__ = ("number", "store")

    def __init__(self) -> None:
        self.number = 1.0
        self.store = {"number": 1.0}

    def tell(self) -> float:
        """By a method."""
        return self.number

    def __call__(self) -> float:
        return self.tell()

    def __getitem__(self, name: str) -> float:
        return self.store[name]

    def __float__(self) -> float:
        return self.number

    @property
    def property_of_it(self) -> float:
        """By a property."""
        return self.number


NUMBERS = np.ones(3, dtype=np.float32)
TENSOR, WIDE, SHARED = torch.ones(3), torch.ones(WIDTH), torch.from_numpy(NUMBERS)
LIST, DICTIONARY = [torch.tensor(1.0)], {"number": torch.tensor(1.0), "array": [np.ones(2)]}
HOLDER, HOLDERS = Holder(), [Holder()]
PARTIAL = functools.partial(lambda held: held[0], [1.0])
CHAIN, USER, QUEUE, ARRAY = ChainMap({"a": 1.0}), UserDict(a=1.0), deque([1.0]), array("d", [1.0])

READS: dict[str, Callable[[Tensor], Tensor]] = {
    "a tensor in a list": lambda h: h * float(LIST[0]),
    "a tensor in a dictionary": lambda h: h * DICTIONARY["number"].item(),
    "an array in containers": lambda h: h * float(DICTIONARY["array"][0].mean()),
    "an array": lambda h: h * float(NUMBERS.mean()),
    "an entry of an array": lambda h: h * float(NUMBERS[1]),
    "a tensor on an array": lambda h: h * float(SHARED[1]),
    "a tensor written by data": lambda h: h * float(TENSOR[1]),
    "a tensor that is used too": lambda h: h * WIDE * float(WIDE.mean()),
    "a method of an object": lambda h: h * HOLDER.tell(),
    "a call of an object": lambda h: h * HOLDER(),
    "an item of an object": lambda h: h * HOLDER["number"],
    "an object as a number": lambda h: h * float(HOLDER),
    "a property of an object": lambda h: h * HOLDER.property_of_it,
    "an object in a list": lambda h: h * HOLDERS[0].tell(),
    "a class": lambda h: h * Holder.told,
    "a partial function": lambda h: h * PARTIAL(),
    "other containers": lambda h: h * CHAIN["a"] * USER["a"] * QUEUE[0] * ARRAY[0],
}


def write(value: float) -> None:
    """Everything that the models read is another value; nothing is put in its place."""
    held = (LIST[0], DICTIONARY["number"], TENSOR, WIDE)
    for tensor in held:
        tensor.data.fill_(value)
    for numbers in (NUMBERS, DICTIONARY["array"][0]):
        numbers.fill(value)
    for holder in (HOLDER, *HOLDERS):
        holder.number = holder.store["number"] = value
    Kind.value = PARTIAL.args[0][0] = CHAIN["a"] = USER["a"] = QUEUE[0] = ARRAY[0] = value


def written(model: nn.Module, inputs: Inputs) -> Any:
    """A call after all of it was written into."""
    write(3.0)
    try:
        return model(*inputs).clone()
    finally:
        write(1.0)


def outside(name: str, read: Callable[[Tensor], Tensor]) -> Case:
    """Read by the model itself; in the twin by a layer behind the span."""

    def make() -> nn.Module:
        return type("Outside", (Outside,), {"read": staticmethod(read)})()

    def twin() -> nn.Module:
        model = Six()
        model.b[4] = Reading(read)
        return model

    return Case(f"read {name}", CAUSE, seeded(make), seeded(twin), drive=written)


class Scaled(Six):
    """An attribute of the model, or of a layer behind the span."""

    class Layer(nn.Linear):
        """Linear, scaled."""

        scale, alone = 1.0, False

        def forward(self, h: Tensor) -> Tensor:
            return super().forward(h) * self.scale

    def build(self) -> None:
        self.scale = 1.0
        self.b[4] = self.Layer(WIDTH, WIDTH)
        self.b[4].alone = self.harmless

    def behind(self, h: Tensor) -> Tensor:
        return h if self.harmless else h * self.scale


class Bodied(nn.Module):
    """The layers are in a module of their own, which a graph opens."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Six()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Flat(nn.Module):
    """The layers are in the model itself, which stays a module."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Six().b

    def forward(self, x: Tensor) -> Tensor:
        for each in self.body:
            x = each(x)
        return x


class Optional(Six):
    """Of two arguments the example gives none."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y: Tensor = super().forward(x)
        return y if mask is None else y * mask


def masked(model: nn.Module, inputs: Inputs) -> Any:
    """An argument is given that the example had not."""
    return model(inputs[0], torch.full((WIDTH,), 2.0))


def set_behind(model: nn.Module, inputs: Inputs) -> Any:
    """An attribute is set past ``__setattr__``: of the model, or of a layer behind the span."""
    layer = model.get_submodule("b.4")
    vars(layer if layer.alone else model)["scale"] = 3.0
    return model(*inputs)


def hooked(model: nn.Module, inputs: Inputs) -> Any:
    """A call while a hook on all modules triples what those return that have layers in a list."""

    def triple(module: nn.Module, given: Any, output: Any) -> Any:
        lists = (isinstance(each, nn.ModuleList) for each in module.children())
        return output * 3 if any(lists) or "body" in dict(module.named_children()) else None

    handle = nn.modules.module.register_module_forward_hook(triple)
    try:
        return model(*inputs)
    finally:
        handle.remove()


CASES = [
    *(outside(name, read) for name, read in READS.items()),
    case(CAUSE, Optional, False, name="given later", drive=masked, example=lambda: (rows(0), None)),
    case(CAUSE, Scaled, name="set behind its back", drive=set_behind),
    Case(
        "hooked with all modules",
        CAUSE,
        seeded(Bodied),
        drive=hooked,
        start="body.b.1",
        end="body.b.3",
    ),
    Case("hooked itself", CAUSE, seeded(Flat), drive=hooked, start="body.1", end="body.3"),
]
