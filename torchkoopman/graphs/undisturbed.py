"""Modules get back the attributes they had, whatever ran on them."""

from __future__ import annotations

import contextlib
import copy
import operator
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


@contextlib.contextmanager
def undisturbed(root: nn.Module) -> Iterator[list[str]]:
    """Give all modules back the attributes they had: a forward that keeps a value kept a proxy.

    Yields a list that holds afterwards the names of the attributes that had been changed.
    """
    saved: list[tuple[str, Any, Any]] = []
    for path, module in root.named_modules():
        prefix = f"{path}." if path else ""
        saved.append((prefix, vars(module), dict(vars(module))))
        for name, value in vars(module).items():
            if isinstance(value, dict | list | set):
                plain = type(value) in (dict, OrderedDict, list, set)
                before = value.copy() if plain else copy.copy(value)  # the former takes a tenth
                saved.append((f"{prefix}{name}", value, before))
    changed: list[str] = []
    try:
        yield changed
    finally:
        for name, container, before in saved:
            if _is_untouched(container, before):
                continue
            changed += _changes(name, container, before)
            container.clear()
            container.extend(before) if isinstance(container, list) else container.update(before)


def _is_untouched(container: Any, before: Any) -> bool:
    """Whether a container has the entries it had, in their order."""
    if len(container) != len(before) or isinstance(container, set):
        return not container and not before
    if isinstance(container, list):
        return all(map(operator.is_, container, before))
    pairs = zip(container.items(), before.items(), strict=True)
    return all(key is old and value is was for (key, value), (old, was) in pairs)


def _changes(name: str, container: Any, before: Any) -> list[str]:
    """Names of the entries that are no longer what they were."""
    if isinstance(container, dict):
        keys = [
            key
            for key in {**before, **container}
            if key not in before or key not in container or before[key] is not container[key]
        ]
        own = not name or name.endswith(".")
        return [f"{name}{key}" for key in keys] if own else [name][: len(keys)]
    if isinstance(container, set):
        return [] if container == before else [name]
    same = len(container) == len(before) and all(map(operator.is_, container, before))
    return [] if same else [name]
