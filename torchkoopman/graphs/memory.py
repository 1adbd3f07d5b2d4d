"""Memory that values of a graph share: who writes before whom reads, and what follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import fx

from torchkoopman.graphs.schemas import (
    ALL,
    Places,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class MemoryEdge:
    """A write and a later read of the same memory through a value made before the write."""

    writer: fx.Node
    written: fx.Node
    reader: fx.Node
    read: fx.Node


def at(node: fx.Node, places: Places) -> list[fx.Node]:
    """The nodes in some arguments of a call, also inside lists and tuples."""
    found: list[fx.Node] = []
    arguments = [(place, value) for place, value in (*enumerate(node.args), *node.kwargs.items())]
    for place, value in arguments:
        if place in places or ALL in places:
            fx.map_arg(value, found.append)
    return found


def closure(nodes: Iterable[fx.Node], step: dict[fx.Node, set[fx.Node]]) -> set[fx.Node]:
    """All nodes reached from ``nodes``, they included."""
    reached: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached.add(node)
            waiting.extend(step[node])
    return reached
