"""A swap as a file records it: enough to do it again, with a module whose numbers come later."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from torchkoopman.koopman.span import Span
from torchkoopman.koopman.structure import outline
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.surgery.history import SwapRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from torchkoopman.observe.trajectory import InputSpec
    from torchkoopman.observe.views import View

_ROOM = 16 * 2**20
"""Bytes that a recorded structure may take beyond twice those of the tensors in its file."""
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "tuple[str, ...]": (tuple,),
    "tuple[str, ...] | None": (tuple, type(None)),
    "dict[str, Any] | None": (dict, type(None)),
    "tuple[InputSpec, ...]": (tuple,),
}


@dataclass(frozen=True)
class Recorded:
    """A surrogate for ``swap`` as it was: same places, same structure, zeros for numbers."""

    record: SwapRecord
    module: nn.Module
    inputs: tuple[InputSpec, ...]
    """Shapes to make inputs of; empty where they would be larger than the file accounts for."""

    @classmethod
    def of(
        cls,
        record: SwapRecord,
        build: Callable[[dict[str, Any]], Any],
        tensors: Mapping[str, Tensor],
    ) -> Recorded:
        """What a record describes.

        Args:
            record: of a surrogate.
            build: from a description to a surrogate.
            tensors: of the file, to which the description is held before anything is allocated.

        Raises:
            ValueError: the file is not what the description is of.
        """
        assert record.config is not None
        with torch.device("meta"):  # no memory until the size is known
            surrogate = build(outline(record.config, record.start, record.end))
            module: nn.Module = surrogate.replacement(record.start, record.end)
            if isinstance(surrogate, Surrogate) and not _fits(record, module, tensors):
                folded = surrogate.replacement(record.start, record.end, thin=False)
                module = folded if _fits(record, folded, tensors) else module
        state = module.state_dict()
        _check_shapes(record, state, tensors)
        needed, size = (sum(each.nbytes for each in held.values()) for held in (state, tensors))
        if needed > 2 * size + _ROOM:  # of a swap whose module a later one took out again
            raise ValueError(
                f"it describes {needed:,} bytes from {record.start!r} to {record.end!r}, and the "
                f"file holds {size:,}"
            )
        zeros = {
            name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in state.items()
        }
        module.load_state_dict(zeros, assign=True)
        given = sum(prod(shape) for shape, _ in record.inputs) * 8
        return cls(record, module, record.inputs if given <= 2 * size + _ROOM else ())

    @property
    def layers(self) -> tuple[str, ...]:
        """The two layers."""
        return self.record.start, self.record.end

    @property
    def views(self) -> Mapping[str, View]:
        """How the layers were read."""
        config = self.record.config or {}
        return Span.from_config(config["span"]).views if "span" in config else {}

    def replacement(self, start: str | None = None, end: str | None = None) -> nn.Module:
        """The module that the tensors of the file are for."""
        return self.module

    def card(self) -> dict[str, Any]:
        """As recorded."""
        return self.record.card or {}

    def config(self) -> dict[str, Any]:
        """As recorded."""
        return self.record.config or {}


def _fits(record: SwapRecord, module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file that has tensors of a record's module has all of a module's, as they are."""
    own = {name: t for name, t in tensors.items() if name.startswith(f"{record.module}.")}
    return not own or all(
        any(t.shape == tensor.shape for other, t in own.items() if other.endswith(f".{name}"))
        for name, tensor in module.state_dict().items()
    )


def _check_shapes(
    record: SwapRecord, state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    """Hold a module's tensors to those that the file has of it, by whatever wraps them."""
    own = {name: t for name, t in tensors.items() if name.startswith(f"{record.module}.")}
    for name, tensor in state.items():
        found = [tuple(t.shape) for other, t in own.items() if other.endswith(f".{name}")]
        if found and tuple(tensor.shape) not in found:
            raise ValueError(
                f"it describes {record.module}.{name} with the shape {tuple(tensor.shape)}, and "
                f"the file holds {found[0]}"
            )


def record_of(entry: dict[str, Any]) -> SwapRecord:
    """The record that a card's entry is.

    Raises:
        TypeError: it has other fields, or values of other kinds.
    """
    tuples: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()
    }
    record = SwapRecord(**tuples)
    for field in fields(record):
        value, kind = getattr(record, field.name), str(field.type)
        strings = "str" in kind and isinstance(value, tuple)
        if type(value) not in _KINDS[kind] or (strings and not all(type(v) is str for v in value)):
            raise TypeError(f"{field.name} is {value!r}, and is a {kind}")
    inputs = tuple((tuple(shape), dtype) for shape, dtype in record.inputs)
    if not all(type(size) is int and size >= 0 for shape, _ in inputs for size in shape):
        raise TypeError(f"inputs is {inputs!r}, with shapes that are none")
    return replace(record, inputs=inputs)
