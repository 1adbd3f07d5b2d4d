"""Unchanged: a check, at each call of a graph, that what its making has read is what it was."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from torchkoopman.graphs.frozen import storage_of
from torchkoopman.observe.facts import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

Key = tuple[Any, ...]
MISSING = object()
"""The value of what is not there."""


@dataclass(frozen=True)
class Read:
    """Something that a graph has read."""

    key: Key
    """Of two with the same key one is enough."""
    name: str
    get: Callable[[nn.Module], Any]
    """What it is now; it is given the graph."""
    value: Any
    version: int | None = None
    """How often a tensor had been written into, if the graph holds what was computed of it."""

    def beside(self, held: Collection[int | None]) -> Read:
        """The same, with the version of a tensor unless the graph holds its memory itself.

        Args:
            held: the memory of the graph's tensors, as :func:`storage_of` names it.
        """
        value = self.value
        if not isinstance(value, Tensor) or value.is_inference() or storage_of(value) in held:
            return self
        return replace(self, version=value._version)

    def is_same(self, graph: nn.Module) -> bool:
        """Whether it is still what it was."""
        value = self.get(graph)
        plain = type(value) is type(self.value) and isinstance(value, (*PLAIN, tuple, dict))
        if value is self.value:
            return self.version is None or value._version == self.version
        return plain and bool(value == self.value)


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
