"""Linear maps as modules with few numbers: of low rank as two thin maps, of blocks as two rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from torchkoopman.koopman.operators import BlockDiagonal, LowRank

if TYPE_CHECKING:
    from torchkoopman.koopman.operator import Operator

FORMED = (LowRank.__name__, BlockDiagonal.__name__)
"""Families that have a form of their own in a replacement."""


class Turning(nn.Module):
    """Blocks of 2 × 2 on the diagonal, and one of 1 × 1 at the end of an odd size."""

    own: Tensor
    across: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        pairs = len(matrix) // 2 * 2
        across = torch.zeros_like(matrix[0])
        across[0:pairs:2] = matrix.diagonal(1)[0:pairs:2]
        across[1:pairs:2] = matrix.diagonal(-1)[0:pairs:2]
        self.own = nn.Parameter(matrix.diagonal().clone())
        """What each entry keeps of itself, ``(size,)``."""
        self.across = nn.Parameter(across)
        """What it takes of its neighbour in the block, ``(size,)``."""

    def forward(self, state: Tensor) -> Tensor:
        """``(…, size)`` → ``(…, size)``."""
        pairs = state.shape[-1] // 2 * 2
        turned = torch.stack([state[..., 1:pairs:2], state[..., 0:pairs:2]], -1).flatten(-2)
        turned = torch.cat([turned, state[..., pairs:]], -1)
        return state * self.own + turned * self.across


def linear_map(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """``x ↦ weight @ x + bias``."""
    # skip_init draws no random numbers: the global generator is not ours.
    linear: nn.Linear = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Linear,
        weight.shape[1],
        weight.shape[0],
        bias=bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    return linear


def operator_map(operator: Operator, matrix: Tensor, bias: Tensor | None) -> nn.Module:
    """A matrix of an operator without its constant, in the form of the operator's family.

    Args:
        operator: its family says what form the matrix may have.
        matrix: K over some time, float64, ``(size, size)``.
        bias: ``(size,)``.
    """
    if isinstance(operator, LowRank) and 2 * operator.rank < len(matrix):
        U, S, Vh = torch.linalg.svd(matrix)
        rank, root = operator.rank, S[: operator.rank].sqrt()
        first = linear_map(root[:, None] * Vh[:rank], None)
        return nn.Sequential(first, linear_map(U[:, :rank] * root, bias))
    if isinstance(operator, BlockDiagonal) and bias is None:
        return Turning(matrix)
    return linear_map(matrix, bias)
