"""How nearly z is an eigenvalue: the two functions of z that pseudospectra are drawn from.

Both are made once, at the cost of one decomposition, and then take batches of z. With each come the
eigenvalues of the matrix it is about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import scipy.linalg
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from torchkoopman.observe.moments import Moments

EXCITED = 1e-8
"""Directions with less than this share of the largest second moment are dropped: an amplitude of
1e-4, about where states kept in float32 are rounding, and where whitening would raise the moments'
own rounding to residuals of √(1e-16 / 1e-8) = 1e-4."""


def excited(second: Tensor, rank: int, tolerance: float = EXCITED) -> tuple[Tensor, Tensor]:
    """The leading eigenvectors and eigenvalues of E[z zᵀ] at the start, largest first.

    At most ``rank``, and only those with more than ``tolerance`` of the largest.

    Raises:
        ValueError: there are no rows, or all latent states are zero or not finite.
    """
    if not (second.isfinite().all() and second.diagonal().max() > 0):
        raise ValueError(
            "the latent states at the start are all zero or not all finite, so there is nothing to "
            "measure residuals on; look at the fit's statistics."
        )
    sizes, directions = torch.linalg.eigh(second)
    keep = sizes > tolerance * sizes[-1]
    return directions[:, keep].flip(1)[:, :rank], sizes[keep].flip(0)[:rank]


def of_data(
    latent: int, moments: Moments | None, rank: int, tolerance: float
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """res(z) of a batch of z, by the smallest eigenvalue of the whitened quadratic form.

    With u whitened, E|uᴴ(z_end - z z_start)|² is uᴴ(L - z̄ A - z Aᵀ + |z|² I)u = uᴴ(N + (A - zI)
    (A - zI)ᴴ)u: N = L - AAᵀ is what no linear map predicts, the rest is the pseudospectrum of the
    regression A in the data's own metric.
    """
    if moments is None or moments.count == 0:
        raise ValueError(
            "the residual pseudospectrum asks the data, and there are no moments of the latent "
            "states; give moments= (a fitted surrogate has them), or take kind='matrix'."
        )
    if ("end", "end") not in moments.pairs:
        raise ValueError(
            "the residual pseudospectrum takes the second moment of the end, and the fit kept none "
            "(residuals=False); fit without that, or take kind='matrix'."
        )
    if moments.features("start") != latent or moments.features("end") != latent:
        raise ValueError(
            f"the moments are of {moments.features('start')} → {moments.features('end')} latent "
            f"coordinates, the operator has {latent}."
        )
    directions, sizes = excited(moments.second("start", "start").cpu(), rank, tolerance)
    whiten = directions / sizes.sqrt()
    A = whiten.T @ moments.second("end", "start").cpu() @ whiten
    L = whiten.T @ moments.second("end", "end").cpu() @ whiten
    eye = torch.eye(len(A)).to(A)

    def smallest(z: Tensor) -> Tensor:
        z = z[:, None, None]
        form = L - z.conj() * A - z * A.T + z.abs().square() * eye
        lowest: Tensor = torch.linalg.eigvalsh(form)[:, 0]
        return lowest.clamp(min=0).sqrt()

    return smallest, torch.linalg.eigvals(A)


def of_matrix(matrix: Tensor, rank: int) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """σ_min(K - zI) of a batch of z; on the leading invariant subspace if K is larger than rank.

    The leading block of an ordered Schur form (Wright & Trefethen 2001); conjugate pairs stay
    together, so it may be one larger than ``rank``.
    """
    H = matrix.to(torch.complex128)
    if len(matrix) > rank:
        moduli = torch.linalg.eigvals(matrix).abs().sort(descending=True).values
        least = moduli[rank - 1].item() * (1 - 1e-9)
        T, _, kept = scipy.linalg.schur(
            matrix.numpy(), "complex", sort=lambda value: abs(value) >= least
        )
        H = torch.from_numpy(T[:kept, :kept])
    eye = torch.eye(len(H)).to(H)
    return lambda z: torch.linalg.svdvals(H - z[:, None, None] * eye)[:, -1], torch.linalg.eigvals(
        H
    )
