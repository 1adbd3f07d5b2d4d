"""Some of the rows that were streamed, by which what was fitted to all of them is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True)
class Sampled:
    """Some of the rows that were streamed, whole samples of them."""

    layers: Mapping[str, Tensor]
    """Layer → its rows, ``(rows, features)``; empty if there are none."""
    samples: Tensor
    """A number for each row's sample, ascending, ``(rows,)``."""
    shares: Tensor
    """Rows of the sample that each stands for."""
    weights: Tensor | None = None
    """Weight of each row in the moments; None where all weigh alike."""
