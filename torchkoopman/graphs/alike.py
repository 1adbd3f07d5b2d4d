"""Alike layers: of many blocks that are made alike, only one need be traced to know them all.

A trace runs a layer's Python, which could ask which of several alike layers it is: by its identity,
a table, a count, a hook. So a layer counts as alike to others only where its code provably cannot:
where all it does is to call its own layers and operations of tensors, with numbers of its own.
"""

from __future__ import annotations

import dis
import functools
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from torchkoopman.observe.facts import PLAIN
from torchkoopman.observe.surroundings import INTERNALS

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

FUNCTIONS = {
    name
    for name, value in vars(nn.functional).items()
    if callable(value) and not isinstance(value, type)
}
OPERATIONS = {name for name in FUNCTIONS | {*dir(Tensor), "nn", "functional"} if name[0] != "_"}
"""What code may ask for besides attributes of ``self``: operations, which make values of a trace of
values of the trace. None makes tensors of numbers alone, reads a setting or sets one."""
HARMLESS = {"len", "int", "float", "bool", "abs", "min", "max", "range", "tuple", "list", "slice"}
"""What code may use of Python's own functions."""
TORCH = (torch, nn, nn.functional)
OUTWARD = {"STORE_ATTR", "DELETE_ATTR", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "IMPORT_NAME"}
"""Instructions that change, or get at, what is neither an argument nor a local variable."""
ASKING, LOADING = {"LOAD_ATTR", "LOAD_METHOD"}, {"LOAD_FAST", "LOAD_FAST_BORROW"}


def likeness(module: nn.Module) -> Hashable:
    """What is equal for layers whose traces must be equal; None where that cannot be said."""
    tracer = fx.Tracer()
    first: dict[int, str] = {}
    found: list[Hashable] = []
    for path, each in module.named_modules(remove_duplicate=False):
        told: Hashable = ()
        if tracer.is_leaf_module(each, path):
            told = bool(getattr(each, "inplace", False))
        elif type(each) is not nn.Sequential or "forward" in vars(each):
            if not _is_told_by_its_values(each):
                return None
            told = tuple((name, repr(value)) for name, value in _values(each).items())
        found.append((path, first.setdefault(id(each), path), type(each), told))
    for path, parameter in module.named_parameters(remove_duplicate=False):
        found.append((path, first.setdefault(id(parameter), path)))
    return tuple(found)


def _values(module: nn.Module) -> dict[str, object]:
    """A module's own attributes, as far as torch.nn does not keep them."""
    own = {name: value for name, value in vars(module).items() if name not in INTERNALS}
    return {"training": module.training, **own}


def _is_told_by_its_values(module: nn.Module) -> bool:
    """Whether a trace of a module could differ only by numbers and text among its attributes."""
    kind, values = type(module), _values(module)
    usual = (
        kind.__getattr__ is nn.Module.__getattr__
        and kind.__getattribute__ is object.__getattribute__
        and kind.__call__ is nn.Module.__call__
    )
    plain = all(type(value) in PLAIN for value in values.values())
    lacking = any(each is None for each in module._parameters.values())
    if not usual or not plain or lacking or module._buffers:
        return False
    waiting, seen = ["forward"], set[str]()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        function = next((vars(each)[name] for each in kind.__mro__ if name in vars(each)), None)
        code = _read(function) if name not in vars(nn.Module) or name == "forward" else None
        held = {name for name in {*values, *module._parameters} if not hasattr(kind, name)}
        if code is None or not code.own <= held | {"training"}:
            return False
        layers = {name for name in code.called & module._modules.keys() if not hasattr(kind, name)}
        waiting += code.called - layers - seen
    return True


@dataclass(frozen=True)
class _Asked:
    """What code asks of ``self``."""

    own: frozenset[str]
    """Attributes."""
    called: frozenset[str]
    """Those that are called at once, and so never compared or looked up in a table."""


def _read(function: object) -> _Asked | None:
    """What a method asks of ``self``; None where it reaches anything but operations besides."""
    if not isinstance(function, types.FunctionType):
        return None
    asked, variables = _asked(function.__code__)
    values = (function.__globals__.get(name) for name in variables - HARMLESS)
    foreign = all(any(value is each for each in TORCH) for value in values)
    bound = variables & HARMLESS & function.__globals__.keys()
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    plain = all(type(value) in PLAIN for value in defaults)
    return asked if foreign and plain and not bound else None


@functools.cache
def _asked(code: types.CodeType) -> tuple[_Asked | None, frozenset[str]]:
    """What code asks of its first argument, None where it does anything odd; and its globals."""
    nothing = (None, frozenset[str]())
    inner = any(isinstance(each, types.CodeType) for each in code.co_consts)
    if inner or code.co_cellvars or code.co_freevars or not code.co_argcount:
        return nothing
    found = [each for each in dis.get_instructions(code) if each.opname != "EXTENDED_ARG"]
    own, called, variables = set[str](), set[str](), set[str]()
    mine = code.co_varnames[0]
    for before, each in zip([None, *found], found, strict=False):
        of_self = before is not None and before.argval == mine
        if each.opname in OUTWARD or (of_self and each.opname not in ASKING):
            return nothing
        if each.opname not in LOADING and mine in _names(each.argval):
            return nothing
        if each.opname in ASKING:
            at_once = each.opname == "LOAD_METHOD" or "NULL|self" in each.argrepr
            if of_self:
                (called if at_once else own).add(str(each.argval))
            elif each.argval not in OPERATIONS:
                return nothing
        elif each.opname == "LOAD_GLOBAL":
            variables.add(str(each.argval))
    return _Asked(frozenset(own), frozenset(called)), frozenset(variables)


def _names(argument: object) -> Iterable[object]:
    return argument if isinstance(argument, tuple) else (argument,)
