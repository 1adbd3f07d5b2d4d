"""Calls of hostile networks: what a call returns, writes, and hands back as gradients."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from benchmarks.hostile.compare import copied, described, flat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.hostile.case import Case, Inputs


@dataclasses.dataclass(frozen=True)
class Use:
    """What one call of a model gave."""

    error: str = ""
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Outputs, and the arguments as they are afterwards."""
    gradients: dict[str, Any] = dataclasses.field(default_factory=dict)
    """By the name of the parameter, or the number of the input."""
    backward_error: str = ""


def use(case: Case, model: nn.Module, inputs: Inputs) -> Any:
    """One call, or what the case does instead."""
    return call(model, inputs) if case.drive is None else case.drive(model, inputs)


def call(model: nn.Module, inputs: Inputs) -> Any:
    """The model's output."""
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def play(
    case: Case,
    model: nn.Module,
    inputs: list[Inputs],
    new: nn.Module,
    begin: Callable[[], None] = lambda: None,
) -> list[Use]:
    """Call a model on inputs, one after the other, from the same random states for every model."""
    found = []
    for number, given in enumerate(inputs):
        begin()
        seed(number)
        leaves: list[Tensor] = []
        try:
            carry = functools.partial(carried, leaves) if case.differentiable else torch.clone
            arguments = pytree.tree_map_only(Tensor, carry, copy.deepcopy(given))
            values = flat({"output": use(case, model, arguments), "given": arguments})
        except Exception as error:  # of anybody's code
            found.append(Use(described(error)))
        else:
            weights = {f"input {i}": leaf for i, leaf in enumerate(leaves)}
            weights |= dict(model.named_parameters(remove_duplicate=False))
            ours = new.named_parameters(remove_duplicate=False)
            weights |= {f"put in {name.split('.')[-1]}": value for name, value in ours}
            found.append(Use("", copied(values), *slopes(values, weights)))
    return found


def carried(leaves: list[Tensor], value: Tensor) -> Tensor:
    """A tensor as an argument that gradients flow to, which a model may write into."""
    if not value.is_floating_point():
        return value
    leaves.append(value.requires_grad_())
    return leaves[-1] * 1


def slopes(values: dict[str, Any], leaves: dict[str, Tensor]) -> tuple[dict[str, Any], str]:
    """The gradients of leaves, which values have a gradient, and why there are none."""
    for leaf in leaves.values():
        leaf.grad = None
    tensors = {key: value for key, value in values.items() if isinstance(value, Tensor)}
    cost = sum(weighted(value) for value in tensors.values())
    found: dict[str, Any] = {f"flow to {key}": x.requires_grad for key, x in tensors.items()}
    try:
        if isinstance(cost, Tensor) and cost.requires_grad:
            cost.backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # of anybody's code
        return {}, described(error)
    return found | {name: dense(leaf) for name, leaf in leaves.items()}, ""


def weighted(value: Tensor) -> Tensor | float:
    """A number that depends on every entry of a tensor, if gradients flow through it."""
    if not value.requires_grad or not value.is_floating_point():
        return 0.0
    weights = torch.cos(torch.arange(value.numel(), dtype=value.dtype)).reshape(value.shape)
    return (value * weights).sum().float()


def dense(value: Tensor) -> Tensor:
    """A leaf's gradient; zeros where there is none."""
    return torch.zeros_like(value) if value.grad is None else value.grad.clone()


def seed(number: int) -> None:
    """Set the global random states of torch, numpy and python."""
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002  # the global state is what users' models draw from
    random.seed(number)


def random_state() -> tuple[Any, ...]:
    """These states."""
    numpy: Any = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), str(numpy[1].tolist()), numpy[2:], random.getstate()


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Put the global random states back afterwards."""
    numpy, python = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(numpy)  # noqa: NPY002
        random.setstate(python)
