"""Facts: what a call or a model holds, by name, and when two are alike."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from torchkoopman.observe.places import leaves, spelled
from torchkoopman.observe.surroundings import INTERNALS, is_foreign

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN = (str, int, float, complex, bool, type(None), torch.dtype, torch.device)
"""Values that are compared as they are."""
ROUNDINGS = 64
"""Difference of two values in units of the last place, of the largest value, that is rounding: the
same sums in another order. What a lost hook, context or branch changes is larger by orders."""
GENERATORS = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)
"""Sources of random numbers: how far they have come is a fact."""
_NO_RECORDS = (nn.Module, type)
"""Objects that are not looked into."""
Facts = dict[str, Any]
"""Name → tensor or plain value."""


def attributes(model: nn.Module) -> Facts:
    """Every buffer and attribute of a model's modules that is a tensor or a plain value."""
    found: Facts = {}
    for path, module in model.named_modules(remove_duplicate=False):
        own = {key: value for key, value in vars(module).items() if key not in INTERNALS}
        for key, value in {**own, **module._buffers}.items():
            name = f"{path}.{key}" if path else key
            if type(value) in PLAIN:  # as most are
                found[name] = value
                continue
            found |= dict(facts_in(name, value, " at "))
            if _is_record(value):
                found |= dict(facts_in(name, vars(value), " at "))
    return found


def _is_record(value: Any) -> bool:
    """Whether this is an object of the user's that may hold values for others."""
    plain = isinstance(value, (Tensor, nn.Module, type, *PLAIN)) or callable(value)
    return not plain and hasattr(value, "__dict__") and not is_foreign(type(value).__module__)


def alike(value: Any, other: Any, least: float = 0.0) -> bool:
    """Whether two facts are equal, tensors up to rounding.

    Args:
        value: one.
        other: another.
        least: difference that is rounding whatever the values' size.
    """
    if isinstance(value, Tensor) != isinstance(other, Tensor):
        return False
    if not isinstance(value, Tensor) or not isinstance(other, Tensor):
        undefined = value != value and other != other
        return type(value) is type(other) and bool(value == other or undefined)
    if value.shape != other.shape or value.dtype != other.dtype:
        return False
    if value.is_meta or other.is_meta:  # without values
        return value.is_meta == other.is_meta
    return torch.equal(value, other) or gap(value, other) <= max(
        least, rounding(value) * _size(other)
    )


def gap(value: Tensor, other: Tensor) -> float:
    """The largest difference of two tensors; equal infinities and NaN do not differ."""
    if not (value.is_floating_point() or value.is_complex()):
        return float("inf")
    one, two = value.detach().to(torch.cdouble), other.detach().to(torch.cdouble)
    same = (one == two) | (one.isnan() & two.isnan())
    worst = (one - two)[~same].abs()
    endless = float("inf")
    return float(worst.nan_to_num(endless, posinf=endless).max()) if worst.numel() else 0.0


def rounding(tensor: Tensor) -> float:
    """The relative difference that counts as rounding in a tensor's precision."""
    real = tensor.is_floating_point() or tensor.is_complex()
    return ROUNDINGS * torch.finfo(tensor.dtype).eps if real else 0.0


def _size(tensor: Tensor) -> float:
    finite = tensor.detach().to(torch.cdouble).abs()
    finite = finite[finite.isfinite()]
    return float(finite.max()) if finite.numel() else 0.0


def facts_in(name: str, value: Any, joint: str = " ") -> Iterator[tuple[str, Any]]:
    """The tensors and plain values in something, each with its name, as copies."""
    for place, leaf in leaves(value):
        path = f"{name}{joint}{spelled(place)!r}" if place else name
        if isinstance(leaf, Tensor):
            yield path, leaf.detach().clone() if not leaf.is_sparse else leaf.detach()
        elif isinstance(leaf, PLAIN):
            yield path, leaf
        elif isinstance(leaf, GENERATORS):
            yield path, _drawn(leaf)
        elif joint == " " and hasattr(leaf, "__dict__") and not isinstance(leaf, _NO_RECORDS):
            cache = hasattr(leaf, "get_seq_length")  # a key-value cache differs by design
            yield from () if cache else facts_in(path, vars(leaf), " at ")


def _drawn(generator: Any) -> int:
    """A mark of how far a source of random numbers has come."""
    if isinstance(generator, torch.Generator):
        return hash(bytes(generator.get_state().numpy()))
    if isinstance(generator, random.Random):
        return hash(generator.getstate())
    source = getattr(generator, "bit_generator", None)
    return hash(repr(generator.get_state() if source is None else source.state))
