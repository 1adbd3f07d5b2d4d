"""Hostile: numbers read out of tensors, arrays and objects that are written into after the swap."""

from __future__ import annotations

import functools
from array import array
from collections import ChainMap, UserDict, deque
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hostile_ambient import Outside, Reading
from hostile_case import WIDTH, Case, Six, seeded
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostile_case import Inputs

CAUSE = "what a number was read of is written into"


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


def written(model: torch.nn.Module, inputs: Inputs) -> Any:
    """A call after all of it was written into."""
    write(3.0)
    try:
        return model(*inputs).clone()
    finally:
        write(1.0)


def outside(name: str, read: Callable[[Tensor], Tensor]) -> Case:
    """Read by the model itself; in the twin by a layer behind the span."""

    def make() -> torch.nn.Module:
        return type("Outside", (Outside,), {"read": staticmethod(read)})()

    def twin() -> torch.nn.Module:
        model = Six()
        model.b[4] = Reading(read)
        return model

    return Case(f"read {name}", CAUSE, seeded(make), seeded(twin), drive=written)


CASES = [outside(name, read) for name, read in READS.items()]
