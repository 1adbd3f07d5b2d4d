"""Switching: whether anything that some calls ran depends on training or evaluation.

Where nothing reads ``training``, and modules are switched as nn.Module does it, calls do the same
in both modes: what is proven in one holds in the other.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from torchkoopman.graphs.code import names_of
from torchkoopman.observe.interrupts import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torchkoopman.observe.surroundings import Surroundings

USUAL = ("torch.nn.modules.module", "torch.fx.", "torchkoopman.")
"""Where methods are from that switch modules as they should."""
BEHIND = {"__dict__", "vars", "__getstate__", "compile"}
"""Names in code that may read an attribute of a module, or run code, unseen."""


class Switch:
    """The attribute ``training`` of all modules, while somebody counts how often it is read."""

    def __get__(self, module: nn.Module | None, owner: type | None = None) -> Any:
        if module is None:  # of the class itself, which has none
            raise AttributeError("training")
        for reading in _READING:
            reading.count += 1
        try:
            return vars(module)["training"]
        except KeyError:
            raise AttributeError("training") from None

    def __set__(self, module: nn.Module, value: Any) -> None:
        vars(module)["training"] = value

    def __delete__(self, module: nn.Module) -> None:
        del vars(module)["training"]


class Reading:
    """Within it each read of ``training`` is counted, of any module and in any thread."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        try:
            with _LOCK:
                _READING.append(self)
                nn.Module.training = Switch()  # type: ignore[assignment]
        except BaseException:  # an interrupt, say: nobody else would take it off all modules
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        with uninterrupted(), _LOCK:
            if self in _READING:
                _READING.remove(self)
            if not _READING and "training" in vars(nn.Module):
                del nn.Module.training


_READING: list[Reading] = []
_LOCK = threading.Lock()


def is_seen(surroundings: Surroundings, modules: Iterable[nn.Module]) -> bool:
    """Whether no read of ``training`` can go unseen, and switching modules does nothing else.

    Args:
        surroundings: what the modules' code can reach.
        modules: all that may be called.
    """
    dynamo: Any = sys.modules.get("torch._dynamo")
    if dynamo is not None and dynamo.utils.counters["frames"]:  # compiled code reads by itself
        return False
    functions = surroundings.functions
    if functions is None or any(_may_hide(each.__code__) for each in functions):
        return False
    return all(_is_plain(module) for module in modules)


def _may_hide(code: Any) -> bool:
    names = names_of(code)
    return bool(BEHIND & (names.attributes | names.variables))


def _is_plain(module: nn.Module) -> bool:
    """Whether switching a module only sets ``training``, and all reads of it are seen."""
    kind, own = type(module), vars(module).keys() - {"training"}
    compiled = isinstance(module, torch.jit.ScriptModule) or module._compiled_call_impl is not None
    shadowed = any("training" in vars(each) for each in kind.__mro__ if each is not nn.Module)
    usual = all(
        str(getattr(kind, name).__module__).startswith(USUAL)
        for name in ("train", "eval", "__setattr__")
    )
    return (
        usual
        and not (compiled or shadowed or own & {"train", "eval"})
        and kind.__getattribute__ is object.__getattribute__
    )
