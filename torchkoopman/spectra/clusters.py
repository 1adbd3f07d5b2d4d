"""Clusters: eigenvalues that noise may have drawn apart from one, and how far that one may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from torchkoopman.spectra.trust import OFF

if TYPE_CHECKING:
    from torch import Tensor

_TOLD = 20.0
"""Standard errors within which eigenvalues are not told from one that is repeated. The circle that
a Jordan block of five is drawn to is about ten of them wide, and up to twenty of the smallest."""
_NORMAL = 1.5
"""Condition number up to which eigenvalues move by as much as the noise, however near they are."""


def raised(values: Tensor, errors: Tensor, conditions: Tensor) -> Tensor:
    """Standard errors, and the radius of each eigenvalue's cluster where that is larger than OFF.

    A standard error is of first order. An eigenvalue that an operator has m times, with one
    eigenvector (a Jordan block), is drawn by noise of size δ to m eigenvalues on a circle of radius
    δ^(1/m) (Kato 1966, "Perturbation theory for linear operators", chapter II), and at each of
    these the standard error is about the m-th part of that radius. So of ill-conditioned ones half
    the distance of the farthest other counts that is within twenty standard errors.

    Args:
        values: eigenvalues, complex, ``(latent,)``.
        errors: their standard errors, ``(latent,)``.
        conditions: their condition numbers, ``(latent,)``.
    """
    gaps = (values[:, None] - values).abs()
    within = gaps <= _TOLD * errors[:, None]
    radius = torch.where(within & (conditions > _NORMAL)[:, None], gaps, 0.0).amax(1) / 2
    return torch.where(radius > OFF, torch.hypot(errors, radius), errors)
