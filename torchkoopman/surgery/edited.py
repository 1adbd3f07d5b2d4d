"""Edited models: what every way of swapping returns, and the functions that it puts into them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Edited:
    """An edited model."""

    model: nn.Module
    module: str
    """Name of the module that was put in."""
    layers: tuple[str, ...]
    """The layers that it replaces."""
    notes: list[str] = field(default_factory=list)
    advice: str = ""
    """What to do if it fails on the example, for the message."""
    unseen: str = ""
    """What the proof on the graph could not look into, for the message."""


def apart(output: Any, source: Any) -> Any:
    """What a module returned, as a copy if it shares memory with what it was given.

    An identity, or a dropout in eval mode, returns its input itself; a layer behind it that works
    in place would then write into the state of the span's first layer.
    """
    if isinstance(output, fx.Proxy) or torch.compiler.is_compiling():  # nothing to ask
        return output.clone()
    try:
        shared = output.untyped_storage()._cdata == source.untyped_storage()._cdata
    except NotImplementedError:  # within torch.func.vmap, say
        shared = True
    return copied(output) if shared else output


def copied(tensor: Tensor) -> Tensor:
    """A copy through which gradients reach the tensor, also under ``torch.no_grad``."""
    with torch.set_grad_enabled(torch.is_grad_enabled() or tensor.requires_grad):
        return tensor.clone()


def without_history(value: Any, source: Any = None) -> Any:
    """What was computed under ``torch.no_grad``: the same values, without a gradient.

    What was not computed but is ``source`` itself, given back, keeps its history.
    """
    if value is source:
        return value
    if isinstance(value, fx.Proxy):
        return value.detach()
    return pytree.tree_map_only(Tensor, Tensor.detach, value)


def free_name(root: nn.Module, start: str, end: str) -> str:
    """A name for the module that no attribute of the model has."""
    plain = "koopman_" + re.sub(r"\W+", "_", f"{start}_to_{end}")
    names = (plain, *(f"{plain}_{count}" for count in range(2, 1000)))
    return next(name for name in names if not hasattr(root, name))
