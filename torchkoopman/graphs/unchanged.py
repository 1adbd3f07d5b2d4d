"""Unchanged: a check, at each call of a graph, that what its making has read is what it was."""

from __future__ import annotations

import array
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from torchkoopman.graphs.frozen import storage_of
from torchkoopman.observe.facts import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

Key = tuple[Any, ...]
MISSING = object()
"""The value of what is not there."""
ARRAYS = (np.ndarray, bytearray, memoryview, array.array)
"""Numbers in memory that can be written into."""


@dataclass(frozen=True)
class Read:
    """Something that a graph has read."""

    key: Key
    """Where two reads have the same key, one of them is enough."""
    name: str
    get: Callable[[nn.Module], Any]
    """What it is now; it is given the graph."""
    value: Any
    content: Tensor | bytes | None = None
    """What was in a tensor or an array, if the graph holds what was computed of it."""

    def beside(self, live: Collection[int | None]) -> Read:
        """The same, with what is in a tensor or an array that the graph does not compute with.

        Args:
            live: the memory of the tensors that it computes with, as :func:`storage_of` names it.
        """
        if isinstance(self.value, Tensor) and storage_of(self.value) in live:
            return self
        return replace(self, content=content_of(self.value))

    def is_same(self, graph: nn.Module) -> bool:
        """Whether it is still what it was."""
        value = self.get(graph)
        if value is self.value:
            return self.content is None or _equal(content_of(value), self.content)
        plain = type(value) is type(self.value) and isinstance(value, (*PLAIN, tuple, dict))
        return plain and bool(value == self.value)


@dataclass(frozen=True, eq=False)
class Itself:
    """An object that equals nothing but itself, whatever its kind says of equality."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Itself) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def entries_of(value: Any) -> Any:
    """What is in a container: plain values and their kinds (1 equals True), others by identity."""

    def entry(each: Any) -> Any:
        return (type(each), each) if isinstance(each, PLAIN) else Itself(each)

    if isinstance(value, Mapping):
        return {key: entry(value[key]) for key in list(value)}
    held = tuple(map(entry, list(value)))
    return dict.fromkeys(held) if isinstance(value, Set) else held


def content_of(value: Any) -> Tensor | bytes | None:
    """A copy of what is in a tensor or an array; None of other kinds."""
    if isinstance(value, ARRAYS):
        return bytes(value) if not isinstance(value, np.ndarray) else value.tobytes()
    if not isinstance(value, Tensor) or value.is_meta or storage_of(value) is None:
        return None
    return (
        value.detach().resolve_conj().resolve_neg().clone().contiguous().view(-1).view(torch.uint8)
    )


def _equal(content: Tensor | bytes | None, other: Tensor | bytes) -> bool:
    if isinstance(content, Tensor) and isinstance(other, Tensor):
        return torch.equal(content, other)
    return type(content) is type(other) and content == other


@dataclass(frozen=True)
class Unchanged:
    """A check that all that a graph has read is what it was; a copy has read the same."""

    reads: tuple[Read, ...] = ()
    plain: bool = False
    """Whether the code asks for the kinds of values, and so takes plain tensors only."""

    def __call__(self, graph: nn.Module, given: Iterable[Any]) -> None:
        """Look, also at what the graph is given.

        Raises:
            RuntimeError: something has changed.
        """
        odd = [x for x in given if isinstance(x, Tensor) and type(x) is not Tensor and self.plain]
        if odd:
            raise RuntimeError(
                f"this graph was made for plain tensors and got a {type(odd[0]).__name__}; the "
                "model's code asks for the kinds of values, so swap with how='eager'."
            )
        for read in self.reads:
            if not read.is_same(graph):
                raise RuntimeError(
                    f"{read.name} has changed since this graph was made, which holds what it was: "
                    "swap again, or swap with how='eager'."
                )

    def __deepcopy__(self, memo: dict[int, Any]) -> Unchanged:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Unchanged, ()  # in another process the world is another
