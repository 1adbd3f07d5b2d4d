"""Reads: what of the world a model's code reads, so that a graph of it can see whether it changed.

Global variables, defaults, attributes of classes and objects, context and environment variables are
constants in a graph: it holds what they were when it was made.
"""

from __future__ import annotations

import functools
import operator
import os
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn

from torchkoopman.graphs.ambient import AMBIENT, HIDDEN, LAYOUT, MANNERS, UNSTABLE
from torchkoopman.graphs.code import (
    EVERY,
    functions_in,
    imported_by,
    is_own,
    names_of,
    stored_by,
    with_methods,
)
from torchkoopman.graphs.getters import (
    attribute_of,
    content_of,
    default_of,
    held_in,
    slot_of,
    told_by,
    values_of,
)
from torchkoopman.graphs.side_effects import hooks_of_all
from torchkoopman.graphs.unchanged import ARRAYS, MISSING, Itself, Read, entries_of
from torchkoopman.observe.facts import PLAIN
from torchkoopman.observe.surroundings import INTERNALS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from torchkoopman.graphs.code import Names
    from torchkoopman.graphs.unchanged import Key

BUILT_IN = (dict, list, tuple, set, frozenset)
CONTAINERS = (Mapping, Sequence, Set)
"""Kinds of containers; those of the user's are read by the code of their classes."""


class Reads:
    """All that the code of some modules reads, itself and through what it calls.

    Args:
        opened: the modules whose code is in a graph.
        called: path → module that the graph goes on calling.
        bypassed: whether it does what modules did that it no longer calls.
    """

    def __init__(
        self,
        opened: Iterable[nn.Module],
        called: Mapping[str, nn.Module],
        bypassed: bool = False,
    ) -> None:
        self.found: dict[Key, Read] = {}
        self.names: set[str] = set()
        """Attributes that the code asks for."""
        self.unstable: list[str] = []
        """What no graph can hold: clocks, iterators, what layers set when they run."""
        self.manners: list[str] = []
        """Methods of nn.Module that have another meaning in the opened modules."""
        self.plain = False
        """Whether the code asks for the kinds of values."""
        self._of_others: set[str] = set()
        self._seen: dict[Key, Any] = {}
        for module in opened:
            self._module(module)
        if bypassed:
            told, hooks = "what is hooked on all modules", hooks_of_all
            self._note((hooks,), told, lambda _: tuple(map(Itself, hooks())))
        for path, module in called.items():
            self._layer(path, module)

    def _note(self, key: Key, name: str, get: Callable[[nn.Module], Any]) -> None:
        self.found[key] = Read(key, name, get, get(_NOTHING))

    def _module(self, module: nn.Module) -> None:
        """A module's forward, and all of its methods and attributes that are used by name."""
        if isinstance(module, fx.GraphModule):
            return
        kind = type(module)
        kinds = [each for each in kind.__mro__ if is_own(each.__module__)]
        held = {**vars(module), **module._parameters, **module._buffers, **module._modules}
        waiting, seen, missing = [("forward", _NO_NAMES)], set[str](), list[str]()
        while waiting:
            name, asking = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            if name == EVERY:
                every = [key for each in (module, *kinds) for key in values_of(each)]
                waiting += [(key, asking) for key in every if key not in INTERNALS]
                continue
            owner = next((each for each in kinds if name in vars(each)), None)
            value = held.get(name, MISSING if owner is None else vars(owner).get(name))
            if name in {**module._parameters, **module._buffers}:
                pass  # live in the graph
            elif name in held and name not in INTERNALS:
                self._inside(f"the attribute {name!r}", value, asking)
            elif owner is not None:
                self._entry(f"{owner.__name__}.{name}", owner, name, asking)
            elif not hasattr(kind, name):
                missing.append(name)
            for function in functions_in(value):
                if is_own(function.__module__):
                    names = self._function(function)
                    waiting.extend((each, names) for each in names.attributes)
        self.manners += [f"{k.__name__}.{n}" for k in kinds for n in MANNERS if n in vars(k)]
        held_by = (entry for each in kinds for entry in vars(each).items())
        self.names |= {name for name, value in held_by if isinstance(value, property)}
        if missing:
            self._note(
                (kind, "missing"),
                f"an attribute of {kind.__name__}",
                lambda _: tuple(name for name in missing if hasattr(kind, name)),
            )

    def _layer(self, path: str, module: nn.Module) -> None:
        """Attributes that the code reads of a layer which the graph calls."""
        known = {**vars(type(module)), **vars(module)}
        names = known.keys() if EVERY in self._of_others else self._of_others
        asked = {name for name in names - INTERNALS if isinstance(known.get(name), PLAIN)}
        for name in asked & known.keys():
            get = functools.partial(attribute_of, path, name)
            self.found[path, name] = Read((path, name), f"{path}.{name}", get, known[name])
        if asked and is_own(type(module).__module__):
            changing = asked & stored_by(module)
            self.unstable += [f"{path}.{name}, which that layer sets" for name in changing]

    def _function(self, function: types.FunctionType) -> Names:
        names = names_of(function.__code__)
        if (id(function),) in self._seen:
            return names
        self._seen[id(function),] = function
        self.names |= names.attributes
        self._of_others |= names.of_others
        self.plain = self.plain or bool(names.variables & {"isinstance", "type", "issubclass"})
        self.unstable += [f"{name}() of a tensor" for name in names.methods & LAYOUT]
        hidden = [name for kind, each in HIDDEN.items() for name in getattr(names, kind) & each]
        self.unstable += [f"what {name}() finds" for name in hidden]
        for name in names.variables & function.__globals__.keys():
            self._entry(f"the global variable {name!r}", function.__globals__, name, names)
        for module in imported_by(function):
            self._inside(f"the module {module.__name__!r}", module, names)
        for name in (names.attributes | names.variables) & AMBIENT.keys():
            probe = AMBIENT[name]
            self._note((probe,), f"torch.{name}()", functools.partial(told_by, probe))
        if (names.attributes | names.variables) & {"environ", "getenv"}:
            self._note(("environ",), "the environment", lambda _: dict(os.environ))
        for cell in function.__closure__ or ():
            get = functools.partial(content_of, cell)
            self._value((id(cell),), "a variable of a closure", get, names)
        for name in ("__defaults__", "__kwdefaults__"):
            get = functools.partial(default_of, function, name)
            told = f"a default of {function.__name__}()"
            self._value((id(function), name), told, get, names)
        return names

    def _entry(self, told: str, home: Any, name: str, names: Names) -> None:
        """A global variable, an attribute of a class, a module or an object."""
        self._value((id(home), name), told, functools.partial(held_in, home, name), names)

    def _value(self, key: Key, told: str, get: Callable[[nn.Module], Any], names: Names) -> None:
        self._note(key, told, get)
        self._inside(told, self.found[key].value, names)

    def _inside(self, told: str, value: Any, names: Names) -> None:
        """What code reads of a value that it has, by the names in the code."""
        key = (id(value), names)
        if key in self._seen or isinstance(value, (*PLAIN, nn.Parameter, nn.Module)):
            return
        self._seen[key] = value
        own = is_own(type(value).__module__)
        if isinstance(value, Iterator):
            self.unstable.append(f"{told}, an iterator")
        elif isinstance(value, operator.attrgetter | operator.methodcaller):
            self.unstable.append(f"{told}, attributes by name")
        elif isinstance(value, (Tensor, *ARRAYS)):
            self._note(("content", id(value)), told, lambda _: value)
        elif isinstance(value, ContextVar):
            self._note(key, told, lambda _: value.get(MISSING))
        elif isinstance(value, BUILT_IN) or (not own and isinstance(value, CONTAINERS)):
            self._container(key, told, value, names)
        elif isinstance(value, types.BuiltinFunctionType):
            self._clocks(str(value.__module__), {value.__name__})
        elif isinstance(value, types.ModuleType) and not is_own(value.__name__):
            self._clocks(value.__name__, names.of_others)
        elif isinstance(value, type) and not is_own(value.__module__):
            self._clocks(value.__module__, names.attributes | {value.__name__})
        elif isinstance(value, functools.partial):
            for each in (value.func, *value.args, *value.keywords.values()):
                self._inside(told, each, names)
        elif isinstance(value, types.MethodType):
            self._inside(told, value.__func__, names)
            self._inside(told, value.__self__, names | names_of(value.__func__.__code__))
        else:
            for function in functions_in(value):
                if is_own(function.__module__):
                    self._function(function)
                else:
                    self._clocks(str(function.__module__), {function.__name__})
            self._attributes(told, value, names)

    def _container(self, key: Key, told: str, value: Any, names: Names) -> None:
        self._note(key, told, lambda _: entries_of(value))
        for each in [*(value.values() if isinstance(value, Mapping) else value)]:
            self._inside(told, each, names)
        if is_own(type(value).__module__):
            self._attributes(told, value, names)

    def _clocks(self, package: str, asked: Collection[str]) -> None:
        clocks = UNSTABLE.get(package, frozenset()).intersection(asked)
        self.unstable += [f"{package}.{name}()" for name in clocks]

    def _attributes(self, told: str, value: Any, names: Names) -> None:
        """What is asked for of an object, a class or a module, also by its own methods.

        Methods with names such as ``__call__`` are asked for by no name.
        """
        made_of = (type(value), value) if isinstance(value, type) else (type(value),)
        kinds = [kind for each in made_of for kind in each.__mro__ if is_own(kind.__module__)]
        owners = kinds if isinstance(value, type) else [value, *kinds]
        names = with_methods(kinds, names)
        for owner in owners:
            every = values_of(owner) if EVERY in names.attributes else ()
            for name in names.attributes & {*getattr(owner, "__dict__", ())} | {*every}:
                entry = vars(owner)[name]
                if isinstance(entry, types.MemberDescriptorType):  # of __slots__
                    get = functools.partial(slot_of, value, name)
                    self._value((id(value), name), f"{told}, {name!r} of it", get, names)
                else:
                    self._entry(f"{told}, {name!r} of it", owner, name, names)


_NOTHING = nn.Module()
_NO_NAMES = names_of(compile("", "", "exec"))
