"""Closures: functions of a model that hold its layers come along when the model is copied.

``copy.deepcopy`` takes functions as they are, so a hook ``lambda module, args, out: head(out)`` of
a copy would go on using the original's head.
"""

from __future__ import annotations

import copy
import functools
import types
import weakref
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from torchkoopman.observe.surroundings import called_by

if TYPE_CHECKING:
    from collections.abc import Iterator


class Closures:
    """The functions of a model whose closure or defaults lead to its own layers and tensors."""

    def __init__(self, model: nn.Module) -> None:
        held = (*model.modules(), *model.parameters(), *model.buffers())
        self._owned = {id(each) for each in held}
        self._copies: dict[int, tuple[types.FunctionType, types.FunctionType]] = {}
        for module in model.modules():
            for function in called_by(module):
                self._leads(function, ())

    @property
    def memo(self) -> dict[int, Any]:
        """What ``copy.deepcopy`` is to take for these functions; see :meth:`finish`."""
        return {key: copied for key, (_, copied) in self._copies.items()}

    def finish(self, memo: dict[int, Any]) -> None:
        """Let the copied functions hold the copied layers, once these are in the memo."""
        for function, copied in self._copies.values():
            for cell, old in zip(copied.__closure__ or (), function.__closure__ or (), strict=True):
                for content in _content(old):
                    cell.cell_contents = self._mapped(content, memo)
            if function.__kwdefaults__:
                copied.__kwdefaults__ = {
                    name: self._mapped(value, memo)
                    for name, value in function.__kwdefaults__.items()
                }
            if function.__defaults__:
                copied.__defaults__ = tuple(
                    self._mapped(value, memo) for value in function.__defaults__
                )

    def _visit(self, function: types.FunctionType, path: tuple[int, ...]) -> bool:
        """Whether a function leads to the model; one that does gets a copy."""
        if id(function) in self._copies:
            return True
        if id(function) in path:
            return False
        contents = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        contents += [each for cell in function.__closure__ or () for each in _content(cell)]
        led = [self._leads(each, (*path, id(function))) for each in contents]  # visits all
        if not any(led):
            return False
        cells = tuple(types.CellType() for _ in function.__closure__ or ())
        copied = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, None, cells
        )
        copied.__dict__.update(vars(function))
        copied.__qualname__ = function.__qualname__
        self._copies[id(function)] = function, copied
        return True

    def _leads(self, value: Any, path: tuple[int, ...]) -> bool:
        if isinstance(value, types.FunctionType):
            return self._visit(value, path)
        if isinstance(value, functools.partial):
            led = [self._leads(each, path) for each in (value.func, *value.args)]
            return any(led)
        if isinstance(value, types.MethodType):
            return id(value.__self__) in self._owned
        if type(value) is weakref.ref:
            return id(value()) in self._owned
        if isinstance(value, nn.Module | Tensor):
            return id(value) in self._owned
        if type(value) in (list, tuple, dict, set):
            held = value.values() if isinstance(value, dict) else value
            led = [self._leads(each, path) for each in held]
            return any(led)
        return False

    def _mapped(self, value: Any, memo: dict[int, Any]) -> Any:
        if isinstance(value, types.FunctionType):
            return self._copies[id(value)][1] if id(value) in self._copies else value
        if type(value) is weakref.ref:
            return weakref.ref(memo.get(id(value()), value()))
        return copy.deepcopy(value, memo) if self._leads(value, ()) else value


def _content(cell: types.CellType) -> Iterator[Any]:
    """What is in a cell, if anything."""
    try:
        yield cell.cell_contents
    except ValueError:
        return
