"""Digests of batches: in full, or of some of their numbers where each batch is looked at."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SOME = 1024
"""Numbers of each tensor by which batches are told apart: their cost is not felt."""


def digest_of(batch: Any) -> str:
    """A digest of a batch: of its tensors and arrays, and of the rest by how it prints.

    Of an object, such as a data class, its attributes count too: it may print shapes alone.
    """
    return _digest(batch, None)


def glimpse_of(batch: Any) -> str:
    """The same of at most 1024 numbers of each tensor: its cost is not felt."""
    return _digest(batch, _SOME)


def _digest(batch: Any, most: int | None) -> str:
    """A digest of a batch, of at most so many numbers of each tensor; printed without addresses."""
    found, objects = hashlib.sha256(), set[int]()
    pending = [batch]
    while pending:
        part = pending.pop()
        if isinstance(part, Mapping):
            pending += [list(part), *part.values()]
        elif isinstance(part, list | tuple):
            pending += part
        elif isinstance(part, np.ndarray) and not part.dtype.hasobject:
            found.update(f"array {part.dtype} {part.shape}".encode())
            found.update(_some(part.reshape(-1), most).tobytes())
        elif isinstance(part, Tensor) and part.layout == torch.strided:
            found.update(f"{part.dtype} {tuple(part.shape)}".encode())
            plain = _some(part.detach().reshape(-1), most).cpu().contiguous()
            found.update(plain.view(torch.uint8).numpy().tobytes())
        else:
            printed = re.sub(r" at 0x[0-9a-f]+", "", str(part))
            found.update(f"{type(part).__name__} {printed}".encode())
            if not isinstance(part, type | ModuleType | FunctionType) and id(part) not in objects:
                objects.add(id(part))
                pending.append(getattr(part, "__dict__", {}))
    return found.hexdigest()[:16]


def _some(numbers: Any, most: int | None) -> Any:
    """At most ``most`` of them, evenly spaced; None for all."""
    return numbers if most is None else numbers[:: -(-len(numbers) // most) or 1]
