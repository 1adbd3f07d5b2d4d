"""States: nested containers of tensors and plain types, as one file of tensors.

What ``state_dict()`` of a fitter returns has tuples, numbers as keys and tensors at any depth. The
tensors go into the file as they are; what holds them is described in JSON, without anybody's code.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchkoopman.storage.errors import FileError, understood
from torchkoopman.storage.formats import parsed
from torchkoopman.storage.tensor_files import read_tensors, write_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_KIND, _STATE = "torchkoopman.kind", "torchkoopman.state"


def write_state(path: Path, kind: str, state: Mapping[str, Any]) -> None:
    """Write a state; the file is there whole or as it was before.

    Raises:
        TypeError: something in it is neither tensor nor plain.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_described(state, tensors))
    write_tensors(path, tensors, {_KIND: kind, _STATE: text})


def read_state(path: Path, kind: str) -> dict[str, Any]:
    """What :func:`write_state` wrote.

    Raises:
        MissingFileError: there is no such file.
        FileError: it is damaged, of an unknown format, or of something else than ``kind``.
    """
    metadata, tensors = read_tensors(path)
    if metadata.get(_KIND) != kind:
        raise FileError(f"{str(path)!r} does not hold {kind}, but {metadata.get(_KIND)!r}.")
    what = "its description"
    with understood(path, what):
        state: dict[str, Any] = _restored(parsed(path, metadata[_STATE], what), tensors)
    return state


def _described(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON of a value: tensors by their names, containers as ``[kind, content]``."""
    if isinstance(value, Tensor):
        name = f"{len(tensors):06d}"
        plain = value.resolve_conj()  # of a conjugate, which is a view, nothing can be viewed
        tensors[name] = torch.view_as_real(plain) if value.is_complex() else plain
        return ["complex" if value.is_complex() else "tensor", name]
    if isinstance(value, dict):
        pairs = [
            [_described(key, tensors), _described(each, tensors)] for key, each in value.items()
        ]
        return ["dict", pairs]
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return [kind, [_described(each, tensors) for each in value]]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(
        f"a state holds tensors, numbers, texts, lists, tuples and dictionaries; got {value!r}."
    )


def _restored(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of :func:`_described`."""
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind == "tensor":
        return tensors[content]
    if kind == "complex":  # safetensors has no complex numbers of double precision
        return torch.view_as_complex(tensors[content])
    if kind == "dict":
        return {_restored(key, tensors): _restored(each, tensors) for key, each in content}
    items = [_restored(each, tensors) for each in content]
    return {"list": list, "tuple": tuple}[kind](items)
