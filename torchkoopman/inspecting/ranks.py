"""Ranks: how many directions states take, or a map keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_ROUNDING = torch.finfo(torch.float32).eps
"""Of states; their moments, in float64, tell no finer."""


@dataclass(frozen=True)
class Rank:
    """Two counts of directions, of what has ``of`` of them."""

    numerical: int
    """Singular values above ``of`` · 1.2e-7 of the largest, as ``torch.linalg.matrix_rank`` counts
    them in float32."""
    effective: float
    """Participation ratio of their squares, ``(Σ σ²)² / Σ σ⁴``: 1 where one direction has
    everything, the number of directions where all have the same."""
    of: int
    """Number of directions there are."""

    def __str__(self) -> str:
        return f"{self.effective:.1f} / {self.numerical} / {self.of}"


def rank_of(singular_values: Tensor) -> Rank:
    """Both counts, of singular values: standard deviations along principal axes, or those of a map.

    Args:
        singular_values: not negative, ``(directions,)``.
    """
    sizes = singular_values.double()
    squares = sizes.square()
    total, largest = squares.sum().item(), sizes.max().item()
    if not largest:
        return Rank(0, 0.0, len(sizes))
    numerical = int((sizes > len(sizes) * _ROUNDING * largest).sum())
    return Rank(numerical, total**2 / squares.square().sum().item(), len(sizes))
