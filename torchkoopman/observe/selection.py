"""Selection: which modules are meant by names, wildcards, types, modules and callables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeVar

import torch
from torch import nn

from torchkoopman.observe.unseen import ancestors, refuse_unseen

Layers = str | nn.Module | type[nn.Module] | Callable[[str, nn.Module], bool] | Iterable["Layers"]
"""What :func:`select` takes: a name, a wildcard, a module, a type, a predicate, or several."""

Option = TypeVar("Option")

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
"""Modules without a forward of their own: they never run, so they have no output."""


@dataclass(frozen=True)
class Selected:
    """One chosen module."""

    name: str
    """Its dotted name in the model; ``""`` is the model itself."""
    module: nn.Module
    calls: frozenset[int] | None = None
    """Which of its calls within one forward are meant, from 0; ``None`` means every call."""

    @property
    def required(self) -> tuple[str, ...]:
        """What a complete forward has run: the name, or ``name#k`` for each chosen call."""
        if self.calls is None:
            return (self.name,)
        return tuple(f"{self.name}#{call}" for call in sorted(self.calls))


def select(model: nn.Module, layers: Layers) -> tuple[Selected, ...]:
    """The modules of ``model`` that ``layers`` means, each once, in the model's own order.

    Args:
        model: names are those of its ``named_modules(remove_duplicate=False)``.
        layers: a name (``""`` is the model itself); a wildcard, where ``*`` and ``?`` stay within
            one dotted component and ``**`` crosses dots; ``"name#k"`` for the k-th call, from 0; a
            module; a module type; a predicate ``(name, module) -> bool``; or an iterable of these.

    Raises:
        ValueError: nothing matches, or a module is meant under two names, compiled, or replicated.
        TypeError: ``layers`` is none of the kinds above.
    """
    refuse_unseen(model, [""])
    modules = dict(model.named_modules(remove_duplicate=False))
    calls: dict[str, set[int] | None] = {}
    for name, call in _matches(modules, layers):
        known = calls.setdefault(name, set())
        if call is None or known is None:
            calls[name] = None
        else:
            known.add(call)
    if not calls:
        raise ValueError(
            f"attach() got no layers: {layers!r} is empty. Give a name such as "
            f"{_some(modules)[0]!r} or a wildcard such as '**'."
        )
    _refuse_ambiguous(modules, calls)
    refuse_unseen(model, calls)
    return tuple(
        Selected(name, module, None if (chosen := calls[name]) is None else frozenset(chosen))
        for name, module in modules.items()
        if name in calls
    )


def common_ancestors(names: Iterable[str]) -> tuple[str, ...]:
    """Names of the modules around all of ``names``, from the model down to the lowest one.

    A chosen module does not count as its own ancestor, except the model itself: nothing is around
    it, so its own call is the outermost.
    """
    chains = [ancestors(name) or [""] for name in names]
    return tuple(name for name in chains[0] if all(name in chain for chain in chains))


def device_of(selected: Iterable[Selected]) -> torch.device:
    """Where calls in compiled code are counted: where the layers are, so that nothing waits."""
    parameters = (parameter for each in selected for parameter in each.module.parameters())
    first = next(parameters, torch.empty(0))
    return torch.device("cpu") if first.is_meta else first.device


def per_layer(
    option: Option | Mapping[str, Option] | None,
    names: Iterable[str],
    argument: str,
    calls: Iterable[str] = (),
    caller: str = "attach",
) -> dict[str, Option]:
    """An option given once for all layers, or by name and wildcard, as one value per layer.

    A layer's own name comes before wildcards, an earlier wildcard before a later one. One of
    ``calls``, as ``"name#k"``, is a key of its own, which no wildcard matches.

    Raises:
        ValueError: a key matches none of the chosen layers.
    """
    names, calls = list(names), list(calls)
    if option is None:
        return {}
    if not isinstance(option, Mapping):
        return dict.fromkeys(names, option)
    chosen: dict[str, Option] = {}
    for pattern, value in option.items():
        matched = [name for name in names if _regex(pattern).fullmatch(name)]
        matched += [call for call in calls if call == pattern]
        if not matched:
            raise ValueError(
                f"{caller}({argument}=...) has the key {pattern!r}, which matches none of the "
                f"chosen layers; these are: {', '.join(map(repr, [*names, *calls]))}."
            )
        for name in matched:
            if name == pattern or name not in chosen:
                chosen[name] = value
    return chosen


def _matches(modules: Mapping[str, nn.Module], layers: Layers) -> Iterator[tuple[str, int | None]]:
    """``(name, call)`` of each match, before duplicates are removed."""
    if isinstance(layers, str):
        yield from _named(modules, layers)
    elif isinstance(layers, nn.Module):
        yield _name_of(modules, layers), None
    elif isinstance(layers, type):
        yield from _where(modules, lambda _, module: isinstance(module, layers), layers.__name__)
    elif callable(layers):
        yield from _where(modules, layers, getattr(layers, "__name__", repr(layers)))
    elif isinstance(layers, Iterable):
        for each in layers:
            yield from _matches(modules, each)
    else:
        raise TypeError(
            f"attach() got layers of type {type(layers).__name__}; give a name, a wildcard, a "
            "module, a module type, a callable (name, module) -> bool, or an iterable of these."
        )


def _named(modules: Mapping[str, nn.Module], text: str) -> Iterator[tuple[str, int | None]]:
    """Matches of a name or wildcard, with or without ``#k``."""
    pattern, hash_sign, digits = text.partition("#")
    if hash_sign and not digits.isdecimal():
        raise ValueError(
            f"attach() got {text!r}; after '#' stands the number of a call within one forward, "
            f"from 0, as in '{pattern}#0'."
        )
    expression, exact = _regex(pattern), pattern in modules
    names = (
        [pattern] if exact else [name for name in modules if name and expression.fullmatch(name)]
    )
    runs = [name for name in names if not isinstance(modules[name], CONTAINERS)]
    if names and not runs:
        raise ValueError(
            f"attach() found only containers for {text!r} ({', '.join(map(repr, names))}): they "
            f"are never called, so they have no output. Take what they hold: '{names[0]}.*'."
        )
    if not runs:
        near = get_close_matches(pattern, [name for name in modules if name], cutoff=0.4)
        raise ValueError(
            f"attach() found no module matching {text!r}; nearest: "
            f"{', '.join(map(repr, near or _some(modules)))}. Patterns are matched against "
            "model.named_modules(): '*' stays within one dotted component, '**' crosses dots."
        )
    for name in runs:
        yield name, int(digits) if hash_sign else None


def _where(
    modules: Mapping[str, nn.Module], predicate: Callable[[str, nn.Module], bool], described: str
) -> Iterator[tuple[str, None]]:
    """Matches of a type or predicate among the modules that run."""
    names = [
        name
        for name, module in modules.items()
        if not isinstance(module, CONTAINERS) and predicate(name, module)
    ]
    if not names:
        kinds = sorted({type(module).__name__ for module in modules.values()})
        raise ValueError(
            f"attach() found no module for {described}; the model has modules of type "
            f"{', '.join(kinds)}, called {', '.join(map(repr, _some(modules)))}, …"
        )
    for name in names:
        yield name, None


def _name_of(modules: Mapping[str, nn.Module], wanted: nn.Module) -> str:
    """The first name of a module given as an object."""
    for name, module in modules.items():
        if module is wanted:
            return name
    raise ValueError(
        f"attach() got a {type(wanted).__name__} that is not part of the model; give one of its "
        f"own modules, such as model.get_submodule({_some(modules)[0]!r}). Copies do not count."
    )


def _refuse_ambiguous(modules: Mapping[str, nn.Module], names: Iterable[str]) -> None:
    first: dict[int, str] = {}
    for name in names:
        other = first.setdefault(id(modules[name]), name)
        if other != name:
            raise ValueError(
                f"attach() was given {other!r} and {name!r}, which are one and the same module, "
                f"so its outputs cannot be told apart by name. Choose one: with {other!r}, its "
                f"calls within one forward become the streams '{other}#0', '{other}#1', …"
            )


def _regex(pattern: str) -> re.Pattern[str]:
    """A wildcard as a regular expression; ``**.`` may also stand for nothing, as in a shell."""
    wild = {"**.": r"(?:.*\.)?", "**": ".*", "*": r"[^.]*", "?": r"[^.]"}
    parts = re.split(r"(\*\*\.|\*\*|\*|\?)", pattern)
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts))


def _some(modules: Mapping[str, nn.Module]) -> list[str]:
    """A few names for an error message."""
    return [name for name in modules if name][:3] or [""]
