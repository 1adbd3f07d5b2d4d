"""Tensors from a file into a model: all of them, in the file's precision, tied ones still tied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.storage.errors import MisfitFileError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn


@torch.no_grad()
def fill(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Give a model the numbers of a file, with their types; devices stay.

    Tensors that share memory are in a file once.

    Raises:
        MisfitFileError: the tensors of the two have other names, shapes or kinds.
    """
    held = {n: t for n, t in model.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
    written = {_memory(held[name]) for name in held.keys() & tensors.keys()}
    missing = [n for n, t in held.items() if n not in tensors and _memory(t) not in written]
    unexpected = [name for name in tensors if name not in held]
    both = [name for name in held if name in tensors]
    others = [
        f"{name} is {_shown(tensors[name])} there and {_shown(held[name])} here"
        for name in both
        if tensors[name].shape != held[name].shape
        or tensors[name].is_floating_point() != held[name].is_floating_point()
    ]
    if missing or unexpected or others:
        reasons = [f"{', '.join(missing)} not in the file"] if missing else []
        reasons += [f"{', '.join(unexpected)} not in the model"] if unexpected else []
        raise MisfitFileError(
            f"the tensors of {str(path)!r} are not those of a {type(model).__name__}: "
            f"{'; '.join([*reasons, *others])}. Give load() the architecture that the file was "
            "written with, before any swap."
        )
    for name in both:
        target, value = held[name], tensors[name]
        if target.dtype != value.dtype:
            _convert(held, name, value.dtype, path)
        target.copy_(value)


def _convert(held: Mapping[str, Tensor], name: str, dtype: torch.dtype, path: Path) -> None:
    """Change the type of a tensor, and of those that share its memory."""
    target = held[name]
    data = target.data.to(dtype)
    for other, tensor in held.items():
        if tensor is not target and _memory(tensor) == _memory(target):
            if tensor.shape != target.shape or tensor.stride() != target.stride():
                raise MisfitFileError(
                    f"{str(path)!r} holds {name!r} in {dtype}, and {other!r} is a part of its "
                    f"memory, which cannot follow: make the model in {dtype} first."
                )
            tensor.data = data
    target.data = data


def _memory(tensor: Tensor) -> tuple[object, ...]:
    """Equal for tensors that share memory."""
    storage = tensor.untyped_storage()
    return (tensor.device, storage.data_ptr()) if storage.nbytes() else (id(tensor),)


def _shown(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
