"""What is read of a bounded sample: rows side by side, and what belongs to them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """Rows that a sample held, by their samples' numbers, and what belongs to them."""

    columns: tuple[Tensor, ...]
    """The rows, side by side, each ``(rows, features)`` and of memory of its own; none without a
    row."""
    samples: Tensor
    """The number of each row's sample, ascending, ``(rows,)``."""
    shares: Tensor
    """How many rows of its sample each stands for."""
    weights: Tensor | None = None
    """Weight of each row in moments of the same halflife; None where all weigh alike."""


def beside(columns: Sequence[Tensor], kept: Tensor) -> Tensor:
    """Some rows of columns side by side, copied once."""
    widths = [each.shape[1] for each in columns]
    dtype = reduce(torch.promote_types, (each.dtype for each in columns))
    rows = columns[0].new_empty(len(kept), sum(widths), dtype=dtype)
    for side, each in zip(torch.split(rows, widths, 1), columns, strict=True):
        if each.dtype == dtype and each.device.type == "cpu":
            torch.index_select(each, 0, kept, out=side)  # in a quarter of the time
        else:
            side.copy_(each[kept])
    return rows
