"""Example inputs: what a model is called with, as people give it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from torchkoopman.observe.costs import unfused

if TYPE_CHECKING:
    from torchkoopman.observe.trajectory import InputSpec

ExampleInputs = Tensor | Sequence[Any] | Mapping[str, Any]
"""A model's one tensor, its positional arguments, or its keyword arguments by name."""

MASK = "attention_mask"
"""The argument that says which positions count: 1 or True, shape ``(batch, positions)``."""


@dataclass(frozen=True)
class Example:
    """One call of a model."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, given: ExampleInputs | Example) -> Example:
        """What was given: a tensor, a list or tuple of positional arguments, or a mapping by name.

        Raises:
            TypeError: something else came.
        """
        if isinstance(given, Example):
            return given
        if isinstance(given, Tensor):
            return cls((given,))
        if isinstance(given, Mapping):  # also what tokenizers give
            return cls((), dict(given))
        if isinstance(given, list | tuple):
            return cls(tuple(given))
        raise TypeError(
            f"example_inputs is a {type(given).__name__}; give the model's one tensor, a tuple of "
            "its positional arguments, or a dict of its keyword arguments."
        )

    @classmethod
    def made(cls, inputs: Sequence[InputSpec], device: torch.device) -> Example:
        """A call with positional tensors of the shapes and dtypes given.

        Normal numbers, or zeros where an input is of whole numbers: an index that always exists.
        """
        generator = torch.Generator().manual_seed(0)
        return cls(tuple(_made(spec, generator).to(device) for spec in inputs))

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors in the arguments, also within containers, in order."""
        leaves = pytree.tree_leaves((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def copied(self) -> Example:
        """The same call on copies of its arguments: models write, exporters leave marks.

        Tensors come detached; an object such as a key-value cache is copied whole.
        """
        args, kwargs = pytree.tree_map(_copy, (self.args, self.kwargs))
        return Example(args, kwargs)

    def with_a_batch(self) -> Example:
        """The same call with every sample twice where there is only one: exporters fix a one."""
        if any(tensor.ndim == 0 or tensor.shape[0] != 1 for tensor in self.tensors):
            return self
        args, kwargs = pytree.tree_map_only(
            Tensor, lambda tensor: torch.cat([tensor, tensor]), (self.args, self.kwargs)
        )
        return Example(args, kwargs)

    def named(self, model: nn.Module, words: Sequence[str]) -> list[str]:
        """The arguments given that have one of ``words`` in their name."""
        names = [*argument_names(model)[: len(self.args)], *self.kwargs]
        return [name for name in names if any(word in name for word in words)]

    def varied(self, model: nn.Module, fixed: Sequence[str]) -> Example | None:
        """Other inputs of the same shapes; None if there are none.

        Floating-point tensors are drawn anew with their mean and deviation, the entries of integer
        tensors change places, or, where all are one number above 0, become one less. Booleans and
        the arguments named in ``fixed`` stay.
        """
        generator = torch.Generator().manual_seed(0)

        def change(name: str, value: Any) -> Any:
            if name in fixed:
                return value
            return pytree.tree_map_only(Tensor, lambda tensor: _other(tensor, generator), value)

        names = (*argument_names(model), *("" for _ in self.args))  # those of *args have none
        args = tuple(change(name, value) for name, value in zip(names, self.args, strict=False))
        varied = Example(args, {name: change(name, value) for name, value in self.kwargs.items()})
        same = all(map(torch.equal, self.tensors, varied.tensors))
        return None if same else varied

    def run(self, model: nn.Module) -> Any:
        """The model's output on copies of the inputs, without gradients or traces in global RNG."""
        call = self.copied()
        devices = [tensor.device for tensor in self.tensors if tensor.is_cuda]
        with torch.no_grad(), torch.random.fork_rng(devices), unfused():
            return model(*call.args, **call.kwargs)


def argument_names(module: nn.Module) -> list[str]:
    """The arguments of a module's forward, in order."""
    return list(inspect.signature(module.forward).parameters)


def _made(spec: InputSpec, generator: torch.Generator) -> Tensor:
    shape, name = spec
    dtype: torch.dtype = getattr(torch, name)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, dtype=dtype, generator=generator)
    return torch.zeros(shape, dtype=dtype)


def _copy(value: Any) -> Any:
    """A copy of one argument; itself where it cannot be copied."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    try:
        return copy.deepcopy(value)
    except (TypeError, RuntimeError):  # a lock, an open file, a tensor with a history inside
        return value


def _other(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Another tensor like one, as :meth:`Example.varied` says."""
    if tensor.dtype == torch.bool or not tensor.numel():
        return tensor
    if not tensor.is_floating_point():
        flat = tensor.flatten()
        if bool((flat == flat[0]).all()):  # an index below a valid one is valid
            return tensor - 1 if flat[0] > 0 else tensor
        order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
        return flat[order].reshape(tensor.shape)
    noise = torch.randn(tensor.shape, generator=generator).to(tensor)
    spread = tensor.std(correction=0) + 1e-3 * tensor.abs().mean()
    return (noise * spread + tensor.mean()).detach()
