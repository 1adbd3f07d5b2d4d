"""What a model returns, holds and writes, as flat mappings that can be compared."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

TOLERANCE = 1e-5
"""float32 rounding, relative to a tensor's largest value."""
PLAIN = Tensor | bool | int | float | str | None
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def flat(value: Any, path: str = "", seen: tuple[int, ...] = ()) -> dict[str, Any]:
    """All tensors and plain values, by where they are in containers and objects.

    Modules, types and functions are not looked into.
    """
    if isinstance(value, PLAIN):
        return {path: value}
    if isinstance(value, np.ndarray):
        return {path: torch.from_numpy(value)}
    if id(value) in seen or isinstance(value, nn.Module | type) or callable(value):
        return {}
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple | deque):
        items = enumerate(value)
    elif hasattr(value, "__dict__"):
        items = vars(value).items()
    found: dict[str, Any] = {}
    for key, each in list(items):
        found |= flat(each, f"{path}.{key}" if path else str(key), (*seen, id(value)))
    return found


def copied(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with detached copies of the tensors."""
    return {
        key: value.detach().clone() if isinstance(value, Tensor) else value
        for key, value in values.items()
    }


def contents(model: nn.Module) -> dict[str, Any]:
    """Copies of parameters, buffers and public attributes, by name, for every name they have."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        public = {key: each for key, each in vars(module).items() if not key.startswith("_")}
        public.pop("training", None)  # a scripted module keeps it elsewhere
        values = {**module._parameters, **module._buffers, **flat(public)}
        found |= {f"{name}.{key}".lstrip("."): each for key, each in values.items()}
    return copied({key: value for key, value in found.items() if value is not None})


def everything(model: nn.Module) -> dict[str, Any]:
    """As :func:`contents`, with gradients, training flags and hooks."""
    found = contents(model)
    for name, module in model.named_modules(remove_duplicate=False):
        found[f"{name} training"] = module.training
        for kind in HOOKS:
            found[f"{name} {kind}"] = str([(k, id(v)) for k, v in getattr(module, kind).items()])
        for key, value in {**module._parameters, **module._buffers}.items():
            found[f"{name}.{key} itself"] = id(value)
            if value is not None and value.is_leaf and value.grad is not None:
                found[f"{name}.{key} gradient"] = value.grad.clone()
    return found


def first_difference(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Where two mappings differ first, and by how much; empty if they are equal."""
    for key in dict.fromkeys((*theirs, *mine)):
        if key not in mine or key not in theirs:
            return f"{key} is {'missing' if key in theirs else 'new'}"
        if told := difference(mine[key], theirs[key]):
            return f"{key} {told}"
    return ""


def difference(value: Any, other: Any) -> str:
    """How a value differs from another, in words; empty if it does not."""
    if not isinstance(value, Tensor) or not isinstance(other, Tensor):
        if type(value) is not type(other):
            return f"is a {type(value).__name__}, not a {type(other).__name__}"
        if isinstance(value, float):
            return difference(torch.tensor(value), torch.tensor(other))
        return "" if value == other else f"is {value!r:.40}, not {other!r:.40}"
    if value.shape != other.shape or value.dtype != other.dtype:
        return f"is {value.dtype} {[*value.shape]}, not {other.dtype} {[*other.shape]}"
    if value.numel() == 0 or torch.equal(value, other):
        return ""
    value, other = value.double(), other.double()
    largest = float(other.nan_to_num(0, 0, 0).abs().max())
    close = torch.isclose(value, other, rtol=0, atol=TOLERANCE * largest + 1e-9, equal_nan=True)
    if bool(close.all()):
        return ""
    gap = float((value - other).nan_to_num(1e30).abs().max())
    return f"differs by {gap / (largest or 1):.1e}"


def only(values: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Some entries, in their order."""
    wanted = set(keys)
    return {key: value for key, value in values.items() if key in wanted}


def under(names: Iterable[str], layers: Iterable[str]) -> set[str]:
    """The names that are layers or inside of layers."""
    prefixes = tuple(f"{layer.partition('#')[0]}." for layer in layers)
    return {name for name in names if f"{name}.".startswith(prefixes)}


def is_state(value: Any) -> bool:
    """Whether this is what a span passes on: a real tensor with two axes or more."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 2


def with_state(output: Any, new: Tensor) -> tuple[Any, bool]:
    """The same structure with another state, and whether there was one to replace."""
    if is_state(output):
        return new, True
    items: dict[Any, Any] = {}
    if isinstance(output, Mapping):
        items = dict(output)
    elif isinstance(output, tuple | list):
        items = dict(enumerate(output))
    elif dataclasses.is_dataclass(output):
        items = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    for key, value in items.items():
        items[key], found = with_state(value, new)
        if found and hasattr(output, "_fields"):
            return type(output)(*items.values()), True
        if found:
            plain = isinstance(output, tuple | list)
            return (type(output)(items.values()) if plain else type(output)(**items)), True
    return output, False


def holds_proxies(value: Any) -> bool:
    """Whether a container of the user's was left with what tracing puts in the place of tensors."""
    if isinstance(value, Mapping):
        return any(map(holds_proxies, value.values()))
    if isinstance(value, list | tuple | deque):
        return any(map(holds_proxies, value))
    return isinstance(value, fx.Proxy)


def described(error: Exception) -> str:
    """The kind of an error and its first line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:150]
