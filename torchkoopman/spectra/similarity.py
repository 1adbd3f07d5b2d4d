"""Comparison of two operators: do two systems have the same linear dynamics up to a change of axes?

The similarity distance is that of dynamical similarity analysis (Ostrow et al., Beyond geometry,
NeurIPS 2023): the least ‖A - C B Cᵀ‖_F over orthogonal C. The spectral distance compares
eigenvalues alone. For normal operators the second is a lower bound of the first (Hoffman &
Wielandt 1953); for others it is not, so the lower bound reported is one that holds for every
matrix. The smaller operator is padded with zeros: directions that it forgets at once. Which
matrices stand for two surrogates is in ``compared.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from torchkoopman.spectra.alignment import alignment_starts, ascend, random_orthogonal
from torchkoopman.spectra.compared import comparable
from torchkoopman.spectra.matrices import matrix_of

if TYPE_CHECKING:
    from torchkoopman.spectra.compared import Fitted, Functions

_NORMAL = 1e-10
"""Largest ‖KKᵀ - KᵀK‖_F / ‖K‖_F² at which a matrix counts as normal."""


@dataclass(frozen=True)
class OperatorDistance:
    """How far two operators are from each other, beside what unrelated ones would give."""

    similarity: float
    """‖A - C B Cᵀ‖_F at the best orthogonal C found; an upper bound of the minimum."""
    lower_bound: float
    """No C has less: the gap to ``similarity`` is all that a better search could gain."""
    spectral: float
    """√(Σ |λ_i - μ_π(i)|²) at the optimal assignment π of eigenvalues; not divided by their number,
    so that it is on the scale of ``similarity``."""
    scale: float
    """√(‖A‖_F² + ‖B‖_F²); ``similarity`` is at most √2 times this."""
    angle: float
    """The least angle between A and C B Cᵀ as vectors, in radians (DSA's angular distance): blind
    to the operators' sizes. NaN if one is zero."""
    rotation: Tensor
    """The best C found, float64, shape ``(size, size)``."""
    null_similarity: Tensor
    """``similarity`` for pairs of random operators that have A's and B's singular values and
    otherwise nothing in common; shape ``(draws,)``."""
    null_spectral: Tensor
    """``spectral`` of the same pairs."""
    sizes: tuple[int, int]
    """Sizes of A and B as compared, before padding."""
    agreement: float
    """Share of the search's starts that ended within 1 % of the scale of the best: small where the
    search is hard, and the distance may be too large."""
    subject: str = "operators"
    """What was compared: ``"operators"`` as they are, or K or K - I on which functions."""
    notes: tuple[str, ...] = ()
    """What the distance holds besides the dynamics, one sentence each."""

    @property
    def relative(self) -> float:
        """``similarity / scale``: 0 for similar operators, whatever their size."""
        return self.similarity / self.scale if self.scale else 0.0

    @property
    def below_null(self) -> float:
        """Share of the null pairs that are farther apart; NaN if none were drawn.

        1 says more alike than random matrices of these singular values, which any two networks of
        one kind are, untrained ones too: both keep the constant, and blocks act alike. Only beside
        the distance of such a pair it says something of what was learnt.
        """
        return (self.null_similarity > self.similarity).double().mean().item()

    def summary(self) -> str:
        """Both distances beside their nulls, the bound, and how sure the search is."""
        lines = [
            f"{self.subject} of size {self.sizes[0]} and {self.sizes[1]}, scale {self.scale:.4g}",
            f"{'':20} {'distance':>9} {'relative':>9} {'null, relative':>18}",
        ]
        for name, value, null in (
            ("similarity", self.similarity, self.null_similarity),
            ("eigenvalues", self.spectral, self.null_spectral),
        ):
            shares = null / self.scale if self.scale else null
            relative = value / self.scale if self.scale else 0.0
            spread = "none drawn"
            if len(shares):
                spread = f"{shares.mean():.4f} ± {shares.std(correction=0):.4f}"
            lines.append(f"{name:20} {value:9.4f} {relative:9.4f} {spread:>18}")
        lines.append(
            f"similarity is at least {self.lower_bound:.4f}; angle {self.angle:.4f}; "
            f"{self.agreement:.0%} of the starts agree"
        )
        return "\n".join([*lines, *self.notes])

    def __str__(self) -> str:
        return self.summary()


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

    The search climbs to ``max ⟨A, C B Cᵀ⟩`` (see ``alignment.py``) from the identity, from
    alignments of both matrices' Schur forms, and from random rotations and reflections. It is not
    convex: the result is an upper bound.

    Args:
        first: A, square.
        second: B, square; the smaller of the two is padded with zeros.
        starts: random ones among them.
        iterations: at most, of each.
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


@torch.no_grad()
def compare(
    first: Fitted | Tensor,
    second: Fitted | Tensor,
    *,
    rank: int = 20,
    starts: int = 8,
    draws: int = 10,
    functions: Functions = "auto",
    less_identity: bool | None = None,
    generator: torch.Generator | None = None,
) -> OperatorDistance:
    """How alike the dynamics of two operators are, beside operators that have nothing in common.

    Surrogates are compared in the metric of their own data: each K over its span in axes in which
    the latent states at the start have second moment 1, over the ``rank`` directions they excite
    most. By default K is projected on functions of the state alone (1 and its coordinates, as an
    orthogonal projection in the data's metric), and for a fit across the span the draw of a
    dictionary's random features is then in neither. What the dictionary says of further functions
    is left out: two systems may differ there. With all directions kept, no invertible change of a
    latent space's basis matters, so surrogates of different seeds can be compared. Matrices are
    taken as they are.

    Args:
        first: a surrogate or a real square matrix.
        second: the same; sizes may differ.
        rank: directions of each surrogate; costs grow with its cube.
        starts: random starts of the search, for the pair and for each null pair.
        draws: null pairs; each costs as much as the comparison itself.
        functions: ``"state"``, ``"latent"`` for all latent coordinates, which holds the draw of a
            dictionary or the training of an encoder as well, or ``"auto"``: ``"state"`` where both
            have the state among their latent coordinates.
        less_identity: compare K - I, what layers do beyond carrying the state on: on a residual
            stream every K is near the identity, and any two are alike. None: where both surrogates
            have one frame for all layers, without which the identity means nothing.
        generator: of the starts and the null; None for one seeded with 0.

    Raises:
        TypeError: something else came.
        ValueError: a matrix that is not square or not finite, a surrogate without statistics, or a
            ``rank`` below 1, or ``functions`` that are not known.
    """
    if rank < 1:
        raise ValueError(f"rank={rank} must be at least 1.")
    draw = torch.Generator().manual_seed(0) if generator is None else generator
    A, B, subject, notes = comparable(first, second, rank, functions, less_identity)
    distance, rotation, agreement = similarity_distance(A, B, starts=starts, generator=draw)
    null_similarity, null_spectral = [], []
    for _ in range(draws):
        a, b = _scrambled(A, draw), _scrambled(B, draw)
        null_similarity.append(similarity_distance(a, b, starts=starts, generator=draw)[0])
        null_spectral.append(spectral_distance(a, b))
    size_a, size_b = A.norm().item(), B.norm().item()
    angle = math.nan
    if size_a and size_b:
        cosine = (size_a**2 + size_b**2 - distance**2) / (2 * size_a * size_b)
        angle = math.acos(max(-1.0, min(1.0, cosine)))
    return OperatorDistance(
        similarity=distance,
        lower_bound=similarity_bound(A, B),
        spectral=spectral_distance(A, B),
        scale=math.hypot(size_a, size_b),
        angle=angle,
        rotation=rotation,
        null_similarity=torch.tensor(null_similarity, dtype=torch.float64),
        null_spectral=torch.tensor(null_spectral, dtype=torch.float64),
        sizes=(len(A), len(B)),
        agreement=agreement,
        subject=subject,
        notes=notes,
    )


def _scrambled(matrix: Tensor, generator: torch.Generator) -> Tensor:
    """A random matrix of the same singular values."""
    left, right = random_orthogonal(len(matrix), 2, generator)
    scrambled: Tensor = left * torch.linalg.svdvals(matrix) @ right
    return scrambled


def _padded(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both at the larger size, with zeros."""
    size = max(len(first), len(second))
    A, B = (
        torch.nn.functional.pad(matrix, (0, size - len(matrix), 0, size - len(matrix)))
        for matrix in (first, second)
    )
    return A, B
