"""Orthogonal alignment of two matrices: the search for the C that brings C B Cᵀ closest to A.

‖A - C B Cᵀ‖² = ‖A‖² + ‖B‖² - 2⟨A, C B Cᵀ⟩, so the last term is to be made large. It is a quadratic
form in C, and on orthogonal matrices adding ``shift·‖C‖²`` changes nothing; with a shift of at
least 2‖A‖‖B‖ the form is convex, and taking the orthogonal factor of its gradient can only raise
it (the generalised power method, Journée et al. 2010). The step needs no size to tune, and smaller
shifts are tried as long as they pay.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SETTLED = 1e-11
"""Gain of an iteration, relative to ‖A‖‖B‖, below which the search has ended."""


def ascend(first: Tensor, second: Tensor, starts: Tensor, iterations: int) -> Tensor:
    """Climb ``⟨A, C B Cᵀ⟩`` over orthogonal C from several starts at once.

    Args:
        first: A, shape ``(size, size)``.
        second: B, of the same shape.
        starts: orthogonal matrices, shape ``(starts, size, size)``.
        iterations: at most; it stops earlier where no start gains any more.

    Returns:
        The matrices reached, never worse than where they started; of the shape of ``starts``.
    """
    A, B, C = first, second, starts
    bound = 2 * torch.linalg.matrix_norm(A, 2) * torch.linalg.matrix_norm(B, 2)
    if not bound > 0:
        return C
    shift = (bound / 8).expand(len(C))
    value = _overlap(A, B, C)
    for _ in range(iterations):
        gradient = A @ C @ B.T + A.T @ C @ B + shift[:, None, None] * C
        U, _, Vh = torch.linalg.svd(gradient)
        trial = U @ Vh
        reached = _overlap(A, B, trial)
        better = reached >= value
        gain = torch.where(better, reached - value, 0.0)
        refused = ~better & (shift < bound)
        C = torch.where(better[:, None, None], trial, C)
        value = torch.where(better, reached, value)
        shift = torch.where(better, shift / 2, (4 * shift).clamp(max=bound))
        if not (refused | (gain > _SETTLED * A.norm() * B.norm())).any():
            break
    return C


def alignment_starts(first: Tensor, second: Tensor) -> Tensor:
    """Where a search may start: the identity, and three alignments of canonical forms.

    The canonical axes are those of the real Schur form, its eigenvalues ordered by modulus and by
    real part, and the eigenvectors of the symmetric part. For orthogonally similar matrices with
    distinct eigenvalues (of the symmetric part, for the last) the alignment is exact.
    """
    frames = zip(_canonical_axes(first), _canonical_axes(second), strict=True)
    aligned = [_with_signs(first, second, P, Q) for P, Q in frames]
    return torch.stack([torch.eye(len(first)).to(first), *aligned])


def random_orthogonal(size: int, count: int, generator: torch.Generator) -> Tensor:
    """Orthogonal matrices, Haar-distributed, float64, shape ``(count, size, size)``."""
    shape = (count, size, size)
    Q, R = torch.linalg.qr(torch.randn(shape, generator=generator, dtype=torch.float64))
    signs = R.diagonal(dim1=-2, dim2=-1).sign()
    drawn: Tensor = Q * signs[:, None, :]
    return drawn


def _canonical_axes(matrix: Tensor) -> list[Tensor]:
    """Orthonormal axes that turn with the matrix: C M Cᵀ has C times these, up to signs."""
    values, vectors = torch.linalg.eig(matrix)
    # An eigenvector's phase is free; this one makes its real and imaginary parts orthogonal.
    phase = vectors.square().sum(0).angle() / 2
    vectors = vectors * torch.polar(torch.ones_like(phase), -phase)
    schur: list[Tensor] = []
    for key in (values.abs(), values.real):
        columns = []
        for k in key.argsort(descending=True, stable=True).tolist():
            if values[k].imag >= 0:
                columns.append(vectors[:, k].real)
            if values[k].imag > 0:
                columns.append(vectors[:, k].imag)
        schur.append(torch.linalg.qr(torch.stack(columns, 1)).Q)
    return [*schur, torch.linalg.eigh((matrix + matrix.T) / 2).eigenvectors]


def _with_signs(first: Tensor, second: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """``P D Qᵀ`` with the signs D that best align PᵀAP with D QᵀBQ D.

    Entry by entry the two agree up to d_i d_j, so d is read off the leading eigenvector of their
    elementwise product.
    """
    agreement = (left.T @ first @ left) * (right.T @ second @ right)
    signs = torch.linalg.eigh(agreement + agreement.T).eigenvectors[:, -1].sign()
    return left * torch.where(signs == 0, 1.0, signs) @ right.T


def _overlap(first: Tensor, second: Tensor, rotations: Tensor) -> Tensor:
    """``⟨A, C B Cᵀ⟩`` of each C."""
    return (first * (rotations @ second @ rotations.mT)).sum((-2, -1))
