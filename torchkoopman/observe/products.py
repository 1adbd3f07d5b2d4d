"""Products of a batch's rows: symmetric ones by half, float32 ones never in TF32."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from torchkoopman.observe.interrupts import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from torch import Tensor

_BLOCKS = (128, 64)
"""Columns of the blocks of a symmetric product, and of the smaller ones on its diagonal: of sizes
that are whole tiles of the processors' kernels, the fastest or nearly so for widths from 64 to
1024."""
_ROWS = 256
"""Rows that float32 sums before float64 takes over."""
_AT_ONCE = 2**17, 512
"""Numbers of one variable that are centred and multiplied at a time, a megabyte of float64, which
stays in the processor's cache in between; and the least number of rows for which a product is
fast."""


def parts(values: Mapping[str, Tensor]) -> list[slice]:
    """Of the rows of a batch, those to take at a time: all on an accelerator.

    Args:
        values: variable → ``(rows, features)``.
    """
    rows = max(len(value) for value in values.values())
    widest = max(value.shape[1] for value in values.values())
    numbers, least = _AT_ONCE
    apart = next(iter(values.values())).device.type != "cpu"
    most = rows if apart else max(least, numbers // max(1, widest))
    count = -(-rows // most)
    return [slice(rows * k // count, rows * (k + 1) // count) for k in range(count)]


def room_for(
    values: Mapping[str, Tensor], rows: int, shared: Collection[str], precision: torch.dtype
) -> dict[str, Tensor]:
    """Memory for so many rows of each variable, and for one more.

    Memory fresh from the system takes longer than to centre rows in it, so variables that are used
    one after the other have the same if they are alike.

    Args:
        values: variable → ``(…, features)``.
        rows: how many.
        shared: variables that are used one after the other.
        precision: of the rows.
    """
    made: dict[object, Tensor] = {}
    found = {}
    for name, value in values.items():
        key = (value.shape[1], value.device) if name in shared else name
        if key not in made:
            # Rows a power of two apart would evict each other from the cache: leave a gap.
            width = value.shape[1]
            made[key] = value.new_empty(rows + 1, width + 8, dtype=precision)[:, :width]
        found[name] = made[key]
    return found


def centre(rows: Tensor, value: Tensor, weights: Tensor | None, mass: float) -> Tensor:
    """Fill all rows but the last with the centred rows of a batch; the mean, float64.

    Args:
        rows: ``(rows + 1, features)``.
        value: ``(rows, features)``.
        weights: of the rows; centred rows are multiplied by their roots.
        mass: sum of the weights.
    """
    inside = rows[:-1]
    # Step by step and in place: mixed dtypes in one operation are several times slower.
    if torch.promote_types(value.dtype, rows.dtype) == rows.dtype:
        value = inside.copy_(value)
    if weights is None:
        mean = value.double().sum(0) / mass
    else:
        mean = weights.double() @ value.double() / mass
    torch.sub(value, mean.to(value.dtype), out=inside)
    if weights is not None:
        inside *= weights.to(rows.dtype).sqrt()[:, None]
    return mean


def add_product(scatter: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``leftᵀ right``."""
    if left.dtype == scatter.dtype:
        scatter.addmm_(left.T, right)
        return
    for a, b in zip(torch.split(left, _ROWS), torch.split(right, _ROWS), strict=True):
        scatter += a.T @ b


def add_square(scatter: Tensor, rows: Tensor, blocks: tuple[int, ...] = _BLOCKS) -> None:
    """Add ``rowsᵀ rows`` by block columns, below the diagonal alone; :func:`mirror` ends it."""
    columns, *smaller = blocks
    for start in range(0, rows.shape[1], columns):
        stop = start + columns
        block, first = rows[:, start:stop], stop if smaller else start
        if smaller:
            add_square(scatter[start:stop, start:stop], block, tuple(smaller))
        if first < rows.shape[1]:
            add_product(scatter[first:, start:stop], rows[:, first:], block)


def mirror(scatter: Tensor, blocks: tuple[int, ...] = _BLOCKS) -> None:
    """Copy what :func:`add_square` has summed to above the diagonal, which it leaves as it was."""
    columns, *smaller = blocks
    for start in range(0, len(scatter), columns):
        stop = start + columns
        if smaller:
            mirror(scatter[start:stop, start:stop], tuple(smaller))
        scatter[start:stop, stop:] = scatter[stop:, start:stop].T


@contextmanager
def exact_float32() -> Iterator[None]:
    """Within it a float32 product is one, also where the user lets networks round to TF32."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    allowed = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        with uninterrupted():
            for backend, precision in zip(backends, allowed, strict=True):
                backend.fp32_precision = precision
