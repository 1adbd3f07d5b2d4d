"""Comparing a swapped model with a reference made of hooks alone, for the zoo."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.hostile.compare import with_state
from torchkoopman.observe.outputs import tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.zoo.family import Family, Inputs


def reference(family: Family, model: nn.Module, module: nn.Module, inputs: Inputs) -> Any:
    """What the edited model must return: the original runs whole, with the state at end overridden.

    What the layers between the two compute reaches all others that use it, as in the original.
    """
    kept: list[Tensor] = []
    with (
        hooked(model, family.start, lambda output: kept.append(state(output).clone())),
        hooked(model, family.end, lambda output: with_state(output, module(kept[0]))[0]),
    ):
        return call(model, inputs)


@contextlib.contextmanager
def hooked(model: nn.Module, layer: str, action: Callable[[Any], Any]) -> Iterator[None]:
    """Give ``action`` the output of one call of a layer, and the layer what it returns, if any."""
    name, _, number = layer.partition("#")
    calls = itertools.count()

    def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
        return action(output) if next(calls) == int(number or 0) else None

    handle = model.get_submodule(name).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def state(output: Any) -> Tensor:
    """A layer's state: the first real tensor with two axes or more in what it returns."""
    return next(x for x in tensors_in(output).values() if x.is_floating_point() and x.ndim >= 2)


def call(model: nn.Module, inputs: Inputs) -> Any:
    """The model's output; it gets copies, since it may write into them."""
    given = copy.deepcopy(inputs)
    return model(**given) if isinstance(given, dict) else model(*given)


def gap(model: nn.Module, samples: list[Inputs], outputs: list[Any], typed: bool = True) -> float:
    """The largest difference of a model's outputs from the given ones, infinite for other types."""
    pairs = [(call(model, x), y) for x, y in zip(samples, outputs, strict=True)]
    if typed and not all(isinstance(found, type(expected)) for found, expected in pairs):
        return math.inf
    return max(difference(found, expected) for found, expected in pairs)


def difference(found: Any, expected: Any) -> float:
    """Largest difference of two outputs, each tensor relative to its largest value.

    0 if equal bit by bit; infinite if places of tensors, shapes or dtypes differ, or at NaN.
    """
    mine, theirs = tensors_in(found), tensors_in(expected)
    if mine.keys() != theirs.keys():
        return math.inf
    worst = 0.0
    for path, other in theirs.items():
        value = mine[path]
        if value.shape != other.shape or value.dtype != other.dtype:
            return math.inf
        if not torch.equal(value, other):
            ratio = ((value - other).abs().max() / other.abs().max()).item()
            worst = max(worst, math.inf if math.isnan(ratio) else ratio)
    return worst
