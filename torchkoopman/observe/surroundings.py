"""Surroundings: what a model's code can reach outside of the model, and how it was before.

Hooks talk through dictionaries, forwards count in global variables and draw random numbers. A proof
runs such code; afterwards everything here is as it was, and every run begins alike.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections import Counter, OrderedDict, defaultdict, deque
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchkoopman.observe.interrupts import uninterrupted
from torchkoopman.observe.randomness import random_states, set_random_states

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOREIGN = ("torch", "numpy", "transformers", "einops", "builtins", "collections", "functools")
"""Packages whose functions and classes are not looked into: their state is no model's."""
CONTAINERS = (dict, OrderedDict, defaultdict, Counter, list, set, deque)
CALLABLE = (types.FunctionType, types.MethodType, functools.partial)
MOST = 5000
"""The most objects that are looked at."""
OUTSIDE = "outside of the model, "
"""Comes before the names of what changes there."""
PLAIN = (str, int, float, complex, bool, type(None))
INTERNALS = frozenset(vars(nn.Module()))
"""Attributes that torch.nn keeps of every module."""
GONE = "gone"
LARGEST = 2**26
"""Bytes of a tensor of which a copy is kept; what is larger is data, and no model writes there."""


class Surroundings:
    """What the code of some models can reach, as it is now."""

    def __init__(self, *models: nn.Module) -> None:
        self._undo: list[Callable[[], None]] = []
        self._containers: list[tuple[Any, Any]] = []  # each with a copy of it as it was
        self._seen: dict[int, Any] = {}
        """Identity → object; holding it keeps the identity its own."""
        self._watched: list[tuple[str, Callable[[], dict[Any, Any]], dict[Any, Any]]] = []
        """Name → entries now, and before, of what is no module's own."""
        self._names: dict[int, str] = {}
        self._torch: set[int] = set()
        """Identities of the containers that torch.nn keeps of modules."""
        self._random = random_states()
        modules = [module for model in models for module in model.modules()]
        waiting: deque[Any] = deque(modules)
        while waiting and len(self._seen) < MOST + len(modules):
            each = waiting.popleft()
            if id(each) not in self._seen:
                self._seen[id(each)] = each
                waiting.extend(self._reached(each))
        self.functions = None if waiting else self._functions()
        """The functions of the user's that were reached; None where there was too much to look at.
        """

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Within it anything may happen; afterwards all is as it was."""
        try:
            yield
        finally:
            self.restore()

    def _functions(self) -> list[types.FunctionType]:
        seen = (each for each in self._seen.values() if isinstance(each, types.FunctionType))
        return [each for each in seen if not is_foreign(each.__module__)]

    @uninterrupted()
    def restore(self) -> None:
        """Give everything back the value it had."""
        set_random_states(self._random)
        for held, before in self._containers:
            if (held or before) and not _same_entries(held, before):
                held.clear()
                held.update(before) if isinstance(held, dict | set) else held.extend(before)
        for undo in self._undo:
            with contextlib.suppress(RuntimeError):  # of a tensor whose size was changed
                undo()

    def left(self) -> dict[str, Any]:
        """Plain values outside of modules that are no longer what they were, by name."""
        found: dict[str, Any] = {}
        for number, (name, now, before) in enumerate(self._watched):
            held = now()
            for key in [*held, *(key for key in before if key not in held)]:
                value = held.get(key, GONE)
                changed = value is not before.get(key, GONE) and not _equal(value, before.get(key))
                if changed and isinstance(value, PLAIN):
                    found[f"{OUTSIDE}{key!r} of {name} ({number})"] = value
        return found

    def _watch(self, name: str, now: Callable[[], dict[Any, Any]]) -> None:
        self._watched.append((name, now, dict(now())))

    def _reached(self, value: Any) -> Iterator[Any]:
        """What one object leads to; how to restore it is noted."""
        if isinstance(value, Tensor):
            self._keep_tensor(value)
        elif type(value) in CONTAINERS:
            self._keep_container(value)
            yield from list(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, types.FunctionType):
            if not is_foreign(value.__module__):
                yield from self._function(value)
        elif isinstance(value, functools.partial):
            yield from (value.func, *value.args, *value.keywords.values())
        elif isinstance(value, types.MethodType):
            yield from (value.__func__, value.__self__)
        elif isinstance(value, property | functools.cached_property):
            yield value.func if isinstance(value, functools.cached_property) else value.fget
        elif isinstance(value, type):
            if not is_foreign(value.__module__):
                yield from self._class(value)
        elif isinstance(value, nn.Module) or not _is_plain(value):
            yield type(value)
            attributes = getattr(value, "__dict__", None)
            if isinstance(attributes, dict):
                module = isinstance(value, nn.Module)
                self._keep_container(attributes, not module)
                yield from called_by(value) if module else ()
                for key, each in list(attributes.items()):
                    own = module and key in INTERNALS
                    self._torch.update([id(each)] if own else [])
                    if own and type(each) in CONTAINERS and not each:  # it leads nowhere
                        self._containers.append((each, ()))
                    else:
                        yield each

    def _function(self, function: types.FunctionType) -> Iterator[Any]:
        """The variables that a function can read and bind, in its closure and its file."""
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty cell
                content = cell.cell_contents
                self._undo.append(functools.partial(setattr, cell, "cell_contents", content))
                self._watch("a closure", functools.partial(_content, cell))
                yield content
        names = set(names_in(function.__code__))
        known = {name: function.__globals__[name] for name in names & set(function.__globals__)}
        unknown = names - set(known)
        self._undo.append(lambda: _rebind(function.__globals__, known, unknown))
        held = function.__globals__
        self._watch("the globals", lambda: {name: held[name] for name in names & held.keys()})
        self._names |= {id(each): name for name, each in known.items()}
        yield from (value for value in known.values() if not isinstance(value, types.ModuleType))
        yield from (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        yield vars(function)

    def _class(self, kind: type) -> Iterator[Any]:
        """A class's own variables and functions."""
        held = {name: value for name, value in vars(kind).items() if not name.startswith("__")}

        def undo() -> None:
            for name in [name for name in vars(kind) if not name.startswith("__")]:
                if name not in held:
                    delattr(kind, name)
            for name, value in held.items():
                if vars(kind).get(name) is not value:
                    setattr(kind, name, value)

        self._undo.append(undo)
        self._watch(
            kind.__name__,
            lambda: {name: value for name, value in vars(kind).items() if name[:2] != "__"},
        )
        yield from (*kind.__bases__, *(getattr(v, "__wrapped__", v) for v in held.values()))

    def _keep_container(self, held: Any, watched: bool = True) -> None:
        before = held.copy()
        if watched and id(held) not in self._torch and isinstance(held, dict | list | deque):
            name = self._names.get(id(held), f"a {type(held).__name__}")
            self._watch(name, lambda: held if isinstance(held, dict) else dict(enumerate(held)))
        self._containers.append((held, before))

    def _keep_tensor(self, tensor: Tensor) -> None:
        odd = tensor.is_meta or tensor.layout != torch.strided
        if isinstance(tensor, nn.Parameter) or odd or tensor.nbytes > LARGEST:
            return
        before = tensor.detach().clone()

        def undo() -> None:
            if not torch.equal(tensor.detach(), before):
                tensor.data.copy_(before)

        self._undo.append(undo)


def called_by(module: nn.Module) -> Iterator[Any]:
    """What a module runs: its forward and its hooks, own and by class."""
    for name, value in vars(module).items():
        if isinstance(value, dict):
            yield from list(value.values()) if value and name.endswith("_hooks") else ()
        elif isinstance(value, CALLABLE):  # the forward of an instance, and what it may call
            yield value
    for parameter in module._parameters.values():
        yield from list((getattr(parameter, "_backward_hooks", None) or {}).values())


def _content(cell: types.CellType) -> dict[Any, Any]:
    return {"variable": cell.cell_contents}


def names_in(code: types.CodeType) -> Iterator[str]:
    """The names in a function and in the functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_in(constant)


def _rebind(variables: dict[str, Any], known: dict[str, Any], unknown: set[str]) -> None:
    for name, value in known.items():
        if variables.get(name) is not value:
            variables[name] = value
    for name in unknown & set(variables):
        del variables[name]


def _same_entries(held: Any, before: Any) -> bool:
    if len(held) != len(before):
        return False
    if isinstance(held, dict):
        return all(key in before and before[key] is value for key, value in held.items())
    if isinstance(held, set):
        return bool(held == before)
    return all(one is other for one, other in zip(held, before, strict=True))


def _equal(value: Any, other: Any) -> bool:
    """Whether two plain values are equal; others are not."""
    plain = isinstance(value, PLAIN) and type(value) is type(other)
    return plain and bool(value == other)


def _is_plain(value: Any) -> bool:
    """Whether a value leads nowhere: numbers, text, and what foreign packages made."""
    return is_foreign(type(value).__module__)


def is_foreign(module: str | None) -> bool:
    """Whether a package is a library whose own state is no model's."""
    return str(module).partition(".")[0] in FOREIGN
