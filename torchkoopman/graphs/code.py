"""Code: which names a function loads, asks for and sets, read off its instructions."""

from __future__ import annotations

import contextlib
import dis
import functools
import sys
import types
from dataclasses import dataclass, fields, replace
from importlib.util import resolve_name
from typing import TYPE_CHECKING, Any

from torchkoopman.observe.surroundings import is_foreign

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

MAKING = frozenset(("__init__", "__new__", "__post_init__", "__setstate__"))
"""Methods that run before a model does."""
MANAGING = MAKING | {
    "__init_subclass__", "__repr__", "__str__", "__eq__", "__hash__", "__reduce__", "__getstate__",
    "__setattr__", "__delattr__", "__setitem__", "__delitem__", "__del__", "__class_getitem__",
    "__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__slots__",
}  # fmt: skip
"""Attributes of classes that are used when objects are made, shown or changed."""


EVERY = "*"
"""Stands among the attributes for all of them, where code asks by a name that is not in it."""
BY_NAME = frozenset(("vars", "__dict__", "__getattribute__", "attrgetter"))
"""What gives attributes by name."""


@dataclass(frozen=True)
class Names:
    """The names in a function and in the functions within it."""

    variables: frozenset[str]
    """Global variables."""
    attributes: frozenset[str]
    """Attributes of anything, and what ``getattr`` and ``hasattr`` may ask for, perhaps `EVERY`."""
    of_others: frozenset[str]
    """Those that are not asked of a plain ``self``."""
    methods: frozenset[str]
    """Attributes that are called at once."""
    stored: frozenset[str]
    """Attributes that are set."""
    imported: frozenset[str]
    """Modules that are imported when it runs, with a dot before them for each level up."""

    def __or__(self, other: Names) -> Names:
        """The names in both."""
        pairs = ((getattr(self, each.name), getattr(other, each.name)) for each in fields(self))
        return Names(*(mine | theirs for mine, theirs in pairs))


@functools.cache
def names_of(code: types.CodeType) -> Names:
    """The names in some code."""
    variables, own, others, methods, stored, imported = (set[str]() for _ in range(6))
    found = [each for each in dis.get_instructions(code) if each.opname != "EXTENDED_ARG"]
    for place, each in enumerate(found):
        name, before = str(each.argval), found[place - 1] if place else None
        if each.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            variables.add(name)
        elif each.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            mine = before is not None and before.opname == "LOAD_FAST" and before.argval == "self"
            (own if mine else others).add(name)
            if each.opname == "LOAD_METHOD" or "NULL|self" in each.argrepr:
                methods.add(name)
        elif each.opname == "STORE_ATTR":
            stored.add(name)
        elif each.opname == "MATCH_CLASS":
            others.update(found[place - 1].argval, [EVERY] if each.arg else [])
        elif each.opname == "IMPORT_NAME":
            imported.add("." * found[place - 2].argval + name)
        elif each.opname == "IMPORT_FROM":
            others.add(name)
    if variables & {"getattr", "hasattr"}:
        strings = (each for each in code.co_consts if isinstance(each, str))
        others |= {each for each in strings if each.isidentifier()}
    if (variables | others | own) & BY_NAME or not _gives_names(found):
        others.add(EVERY)
    inner = [names_of(each) for each in code.co_consts if isinstance(each, types.CodeType)]
    return Names(
        variables=frozenset(variables).union(*(each.variables for each in inner)),
        attributes=frozenset(own | others).union(*(each.attributes for each in inner)),
        of_others=frozenset(others).union(*(each.of_others for each in inner)),
        methods=frozenset(methods).union(*(each.methods for each in inner)),
        stored=frozenset(stored).union(*(each.stored for each in inner)),
        imported=frozenset(imported).union(*(each.imported for each in inner)),
    )


def _gives_names(code: list[dis.Instruction]) -> bool:
    """Whether each call of getattr and hasattr has the name as a constant."""
    asking = ("getattr", "hasattr")
    places = [place for place, each in enumerate(code) if each.argval in asking]
    loads = [place for place in places if code[place].opname in ("LOAD_GLOBAL", "LOAD_NAME")]
    return all(_has_constant_name(code[place + 1 :]) for place in loads)


def _has_constant_name(code: list[dis.Instruction]) -> bool:
    """Whether the second of the arguments that are put on the stack until a call is a constant."""
    depth, second = 0, None
    for each in code:
        if each.opname in ("PRECALL", "CALL") and depth == each.arg:
            return second is not None and second.opname == "LOAD_CONST"
        depth += dis.stack_effect(each.opcode, each.arg, jump=False)
        if depth == 2:
            second = each
        elif depth < 0:
            return False
    return False


def stored_by(module: nn.Module) -> set[str]:
    """The attributes that a module's own code sets when it runs, on itself or on others."""
    found: set[str] = set()
    for function in _functions(module):
        found |= names_of(function.__code__).stored
    return found


def _functions(module: nn.Module) -> Iterator[types.FunctionType]:
    """The methods of a module that run with it, without those of nn.Module."""
    for kind in type(module).__mro__:
        if kind.__module__ != "torch.nn.modules.module":
            for name, value in vars(kind).items():
                if isinstance(value, types.FunctionType) and name not in MAKING:
                    yield value
    forward = vars(module).get("forward")
    if isinstance(forward, types.FunctionType):
        yield forward


def is_own(package: str | None) -> bool:
    """Whether a package is the user's: no library that is not looked into, none of Python's own."""
    first = str(package).partition(".")[0]
    return not is_foreign(package) and first not in {*sys.stdlib_module_names, "torchkoopman"}


def functions_in(value: Any) -> Iterator[types.FunctionType]:
    """The functions in a method, a property, or what wraps one."""
    if isinstance(value, types.FunctionType):
        yield value
        kinds = vars(value).get("registry")  # of functools.singledispatch
        for each in kinds.values() if isinstance(kinds, types.MappingProxyType) else ():
            yield from functions_in(each) if each is not value else ()
    elif isinstance(value, staticmethod | classmethod | types.MethodType):
        yield from functions_in(value.__func__)
    elif isinstance(value, functools.partial):
        yield from functions_in(value.func)
    elif isinstance(value, property):
        yield from functions_in(value.fget)
    elif callable(getattr(value, "__wrapped__", None)):
        yield from functions_in(value.__wrapped__)


def imported_by(function: types.FunctionType) -> Iterator[types.ModuleType]:
    """The modules that a function has imported when it ran."""
    package = function.__globals__.get("__package__") or ""
    for name in names_of(function.__code__).imported:
        with contextlib.suppress(ImportError):  # no such package, as in a branch that never runs
            whole = resolve_name(name, package)
            parts = {whole, whole.partition(".")[0]}
            yield from (sys.modules[each] for each in parts & sys.modules.keys())


def with_methods(kinds: Iterable[type], names: Names) -> Names:
    """The names, and those in the methods of an object that are asked for or have no name."""
    methods = {name: each for kind in reversed([*kinds]) for name, each in vars(kind).items()}
    named = frozenset(name for name in methods if name[:2] == "__" and name not in MANAGING)
    found, seen = replace(names, attributes=names.attributes | named), set[str]()
    while waiting := found.attributes & methods.keys() - seen:
        seen |= waiting
        for name in waiting:
            for function in functions_in(methods[name]):
                found |= names_of(function.__code__)
    return found
