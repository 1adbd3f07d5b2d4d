"""Products of a batch's rows: symmetric ones by half, float32 ones never in TF32."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

_BLOCK, _ROWS = 128, 256
"""Columns of a block of a symmetric product; rows that float32 sums before float64 takes over."""


def centred(
    value: Tensor, weights: Tensor | None, mass: float, precision: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Mean of a batch, float64; and its centred rows, with one more below, still to be filled.

    Args:
        value: ``(rows, features)``.
        weights: of the rows; centred rows are multiplied by their roots.
        mass: sum of the weights.
        precision: of the centred rows.
    """
    (count, width), wide = value.shape, torch.promote_types(value.dtype, precision)
    # Rows a power of two apart would evict each other from the cache: leave a gap. In place and
    # step by step, for mixed dtypes in one operation are several times slower.
    rows = value.new_empty(count + 1, width + 8, dtype=wide)[:, :width]
    rows[:-1] = value
    if weights is None:
        mean = rows[:-1].double().sum(0) / mass
        rows[:-1] -= mean.to(wide)
    else:
        mean = weights.double() @ rows[:-1].double() / mass
        rows[:-1] -= mean.to(wide)
        rows[:-1] *= weights.sqrt()[:, None].to(wide)
    return mean, rows.to(precision)


def add_product(scatter: Tensor, left: Tensor, right: Tensor, symmetric: bool) -> None:
    """Add ``leftᵀ right``; of a symmetric one, blocks below the diagonal are copied from above."""
    columns = _BLOCK if symmetric else max(1, left.shape[1])
    rows = len(left) if left.dtype == scatter.dtype else _ROWS
    for start in range(0, left.shape[1], columns):
        first, stop = (start if symmetric else 0), start + columns
        block = scatter[start:stop, first:]
        sides = torch.split(left[:, start:stop], rows), torch.split(right[:, first:], rows)
        for a, b in zip(*sides, strict=True):
            if left.dtype == scatter.dtype:
                block.addmm_(a.T, b)
            else:
                block += a.T @ b
        if symmetric:
            scatter[stop:, start:stop] = block[:, columns:].T


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
        for backend, precision in zip(backends, allowed, strict=True):
            backend.fp32_precision = precision
