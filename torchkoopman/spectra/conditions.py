"""How far an error of the operator moves an eigenvalue: condition numbers in the data's metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_CLUSTER = 5
"""Eigenvalues that are taken together at most."""


def conditions(values: Tensor, functions: Tensor, duals: Tensor, within: float) -> Tensor:
    """To first order λ moves by at most its condition number times the size of the error.

    That of one eigenvalue is the norm of its spectral projector, ‖φ‖ ‖v‖ / |⟨φ, v⟩| (Wilkinson
    1965). Eigenvalues that nearly coincide have large ones and move together: of λ alone and of λ
    with its nearest neighbours ``within`` that distance, the projector of least norm is taken.

    Args:
        values: eigenvalues, complex, ``(latent,)``.
        functions: ⟨φ_i, φ_j⟩ of the left eigenvectors, ``(latent, latent)``.
        duals: ⟨v_i, v_j⟩ of the right ones in the dual metric, scaled to ⟨φ_i, v_i⟩ = 1.
        within: how far apart eigenvalues may be that move together.

    Returns:
        At least 1, infinite where a function is NaN; float64, ``(latent,)``.
    """
    gaps = (values[:, None] - values).abs()
    gaps.fill_diagonal_(-1)  # each is its own nearest, also where others equal it
    distances, nearest = gaps.topk(min(_CLUSTER, len(values)), largest=False)
    least = torch.full_like(distances[:, 0], torch.inf)
    for size in range(1, distances.shape[1] + 1):
        rows, columns = nearest[:, :size, None], nearest[:, None, :size]
        product = duals[rows, columns] @ functions[rows, columns]
        known = (distances[:, size - 1] <= within) & product.isfinite().all(2).all(1)
        squares = torch.linalg.eigvals(product[known]).abs().amax(1)
        least[known] = torch.minimum(least[known], squares.sqrt())
    return least.clamp(min=1)
