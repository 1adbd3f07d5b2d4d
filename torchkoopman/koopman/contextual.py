"""Parts of a dictionary that look along the positions of a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchkoopman.koopman.part import Part

if TYPE_CHECKING:
    from collections.abc import Sequence


class ContextMean(Part):
    """The mean state over a sample's positions.

    Example:
        >>> x = torch.randn(100, 8, 3, generator=torch.Generator().manual_seed(0))  # 8 positions
        >>> pair = tk.Trajectory.of(x, x + x.mean(1, keepdim=True))
        >>> [tk.EDMDFitter(parts).update(pair).surrogate.record.r2["1"] > 1 - 1e-6
        ...  for parts in ((), tk.ContextMean())]
        [False, True]

    Args:
        causal: take the mean over the positions up to each one instead of over all.
    """

    contextual = True

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal

    def width(self, features: int) -> int:
        """One mean per coordinate."""
        return features

    def forward(self, state: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, positions, coordinates)`` → the same shape; masked positions do not count."""
        counted = torch.ones_like(state[..., :1]) if mask is None else mask[..., None].to(state)
        known = state if mask is None else torch.where(mask[..., None], state, 0)
        if self.causal:
            return known.cumsum(1) / counted.cumsum(1).clamp(min=1)
        mean = known.sum(1, keepdim=True) / counted.sum(1, keepdim=True).clamp(min=1)
        return mean.expand_as(state)

    def config(self) -> dict[str, Any]:
        """Whether causal."""
        return {"causal": self.causal}


class Neighbours(Part):
    """Delay coordinates along the positions: the states at the given offsets.

    Where a neighbour is masked or beyond the ends, a position's own state is taken for it.

    Example:
        >>> x = torch.randn(100, 8, 3, generator=torch.Generator().manual_seed(0))  # 8 positions
        >>> pair = tk.Trajectory.of(x, torch.cat([x[:, :1], x[:, :-1]], 1))  # moved on by one
        >>> [tk.EDMDFitter(parts).update(pair).surrogate.record.r2["1"] > 1 - 1e-6
        ...  for parts in ((), tk.Neighbours([-1]))]
        [False, True]

    Args:
        offsets: -1 is the position before; negative offsets alone are causal.

    Raises:
        ValueError: no offset, or 0 among them.
    """

    contextual = True

    def __init__(self, offsets: Sequence[int] = (-1, 1)) -> None:
        super().__init__()
        if not offsets or 0 in offsets:
            raise ValueError(f"offsets={tuple(offsets)} must be non-zero integers, at least one.")
        self.offsets = tuple(offsets)

    def width(self, features: int) -> int:
        """One state per offset."""
        return features * len(self.offsets)

    def forward(self, state: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, positions, coordinates)`` → ``(batch, positions, offsets·coordinates)``."""
        here = torch.arange(state.shape[1], device=state.device)
        copies = []
        for offset in self.offsets:
            there = here + offset
            inside = (there >= 0) & (there < state.shape[1])
            index = torch.where(inside, there, here)
            known = inside if mask is None else inside & mask[:, index]
            copies.append(torch.where(known[..., None], state[:, index], state))
        return torch.cat(copies, -1)

    def config(self) -> dict[str, Any]:
        """The offsets."""
        return {"offsets": list(self.offsets)}
