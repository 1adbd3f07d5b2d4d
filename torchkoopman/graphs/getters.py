"""How a value that code has read is read again: each by a function of the graph, to be kept."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

from torchkoopman.graphs.unchanged import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn


def values_of(owner: Any) -> Iterator[str]:
    """The names of an object's, a class's or a module's own values, without what it can do."""
    for name, value in getattr(owner, "__dict__", {}).items():
        if name[:2] != "__" and not callable(value) and not isinstance(value, types.ModuleType):
            yield name


def attribute_of(path: str, name: str, graph: nn.Module) -> Any:
    """An attribute of a layer of the graph."""
    return getattr(graph.get_submodule(path), name, MISSING)


def held_in(home: Any, name: str, _: nn.Module) -> Any:
    """An entry of a dictionary, or of what an object holds."""
    return (home if isinstance(home, dict) else vars(home)).get(name, MISSING)


def slot_of(value: Any, name: str, _: nn.Module) -> Any:
    """A slot of an object."""
    return getattr(value, name, MISSING)


def told_by(probe: Callable[[], Any], _: nn.Module) -> Any:
    """What a function without arguments says."""
    return probe()


def default_of(function: types.FunctionType, name: str, _: nn.Module) -> Any:
    """The defaults of a function."""
    return getattr(function, name)


def content_of(cell: types.CellType, _: nn.Module) -> Any:
    """What is in a cell of a closure."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING
