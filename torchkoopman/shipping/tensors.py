"""Tensors from a file into a model: all of them, in the file's precision, tied ones still tied."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.storage.errors import MisfitFileError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn


def written_once(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What a file holds of a state_dict: of tied tensors one, of parts of others a copy each.

    Returns:
        The tensors by name, and the name left out of each tied tensor → that in the file.
    """
    kept: dict[tuple[object, ...], str] = {}
    tied: dict[str, str] = {}
    for name in sorted(tensors):
        tensor = tensors[name]
        key = (*_memory(tensor), tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if kept.setdefault(key, name) != name:
            tied[name] = kept[key]
    parts = {name: tensor for name, tensor in tensors.items() if name not in tied}
    memory = [_memory(tensor) for tensor in parts.values()]
    count = Counter(memory)
    return {
        name: tensor.clone() if count[place] > 1 or _part(tensor) else tensor.contiguous()
        for (name, tensor), place in zip(parts.items(), memory, strict=True)
    }, tied


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same numbers, or none in the same places."""
    theirs = other.to(one.device)
    return bool(((one == theirs) | ((one != one) & (theirs != theirs))).all())


def _part(tensor: Tensor) -> bool:
    """Whether its memory holds more than the tensor."""
    return tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size()


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
    shared = Counter(_memory(held[name]) for name in both)
    for name in both:
        if shared[_memory(held[name])] > 1 and not _same(held[name], tensors[name]):
            raise MisfitFileError(
                f"{name!r} shares memory with another tensor in this {type(model).__name__}, and "
                f"{str(path)!r} has other numbers for the two: they were apart in the model that "
                "was exported. Give load() a model in which they are."
            )


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
