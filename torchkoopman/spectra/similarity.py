"""Distances of two matrices as operators: up to a change of axes, and of eigenvalues alone.

The similarity distance is that of dynamical similarity analysis (Ostrow et al., Beyond geometry,
NeurIPS 2023): the least ‖A - C B Cᵀ‖_F over orthogonal C. The spectral distance compares
eigenvalues alone. For normal operators the second is a lower bound of the first (Hoffman &
Wielandt 1953); for others it is not, so the lower bound given is one that holds for every matrix.
The smaller operator is padded with zeros: directions that it forgets at once.
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from torchkoopman.spectra.alignment import alignment_starts, ascend, random_orthogonal
from torchkoopman.spectra.geodesics import climb
from torchkoopman.spectra.matrices import matrix_of

_LARGE, _STEPS = 32, 2
"""Size above which conjugate gradients search, and how many times fewer steps they take: from 40 on
they came at least as far, at 20 not always. See ``python -m benchmarks.costs.comparison``."""
_NORMAL = 1e-10
"""Largest ‖KKᵀ - KᵀK‖_F / ‖K‖_F² at which a matrix counts as normal."""


def spectral_distance(first: Tensor, second: Tensor) -> float:
    """√(Σ |λ_i - μ_π(i)|²), the 2-Wasserstein distance of two matrices' eigenvalues, times √size.

    Missing eigenvalues of the smaller matrix count as 0.
    """
    A, B = _padded(matrix_of(first, "first"), matrix_of(second, "second"))
    cost = (torch.linalg.eigvals(A)[:, None] - torch.linalg.eigvals(B)).abs().square()
    rows, columns = linear_sum_assignment(cost.numpy())
    return math.sqrt(cost[rows, columns].sum().item())


def similarity_distance(
    first: Tensor,
    second: Tensor,
    *,
    starts: int = 8,
    iterations: int = 300,
    generator: torch.Generator | None = None,
) -> tuple[float, Tensor, float]:
    """The least ‖A - C B Cᵀ‖_F found over orthogonal C, with that C.

    The search climbs to ``max ⟨A, C B Cᵀ⟩`` (see ``alignment.py``, and ``geodesics.py`` for large
    matrices) from the identity, from alignments of both matrices' Schur forms, and from random
    rotations and reflections. It is not convex: the result is an upper bound.

    Args:
        first: A, square.
        second: B, square; the smaller of the two is padded with zeros.
        starts: random ones among them.
        iterations: at most, of each; half of them where the larger size is above 32.
        generator: of the random starts; None for one seeded with 0.

    Returns:
        distance, C of the larger size, and the share of starts that ended within 1 % of the scale
        of the best.
    """
    A, B = _padded(matrix_of(first, "first"), matrix_of(second, "second"))
    if A.norm() < B.norm():  # one order for both, so that the distance is symmetric
        distance, C, agree = similarity_distance(
            B, A, starts=starts, iterations=iterations, generator=generator
        )
        return distance, C.T, agree
    draw = torch.Generator().manual_seed(0) if generator is None else generator
    begin = torch.cat([alignment_starts(A, B), random_orthogonal(len(A), starts, draw)])
    if len(A) > _LARGE:
        C = climb(A, B, begin, iterations // _STEPS)
    else:
        C = ascend(A, B, begin, iterations)
    distances = torch.linalg.matrix_norm(A - C @ B @ C.mT)
    best = distances.argmin()
    near = 0.01 * math.hypot(A.norm().item(), B.norm().item())
    agree = (distances <= distances[best] + near).double().mean().item()
    return distances[best].item(), C[best], agree


def similarity_bound(first: Tensor, second: Tensor) -> float:
    """A number that ‖A - C B Cᵀ‖_F is at least, for every orthogonal C.

    The largest of: the distance of the singular values (Mirsky 1960); that of the eigenvalues of
    symmetric and skew parts together, which C turns apart (Hoffman & Wielandt on each); and, if
    both matrices are normal, that of their eigenvalues.
    """
    A, B = _padded(matrix_of(first, "first"), matrix_of(second, "second"))
    singular = (torch.linalg.svdvals(A) - torch.linalg.svdvals(B)).square().sum()
    symmetric = [torch.linalg.eigvalsh((M + M.T) / 2) for M in (A, B)]
    skew = [torch.linalg.eigvalsh(1j * (M - M.T) / 2) for M in (A, B)]
    parts = sum((a - b).square().sum() for a, b in (symmetric, skew))
    bounds = [math.sqrt(singular.item()), math.sqrt(float(parts))]
    if all((M @ M.T - M.T @ M).norm() <= _NORMAL * M.square().sum() for M in (A, B)):
        bounds.append(spectral_distance(A, B))
    return max(bounds)


def _padded(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both at the larger size, with zeros."""
    size = max(len(first), len(second))
    A, B = (
        torch.nn.functional.pad(matrix, (0, size - len(matrix), 0, size - len(matrix)))
        for matrix in (first, second)
    )
    return A, B
