"""Logarithms and fractional powers of real matrices, where they exist."""

from __future__ import annotations

import torch
from torch import Tensor

CONDITION_LIMIT = 1e8
"""Eigenvectors worse conditioned than this (in float64) do not carry a fractional power."""


def logarithm(matrix: Tensor) -> Tensor:
    """The principal real logarithm of a matrix, without a gradient.

    Raises:
        ValueError: an eigenvalue lies on the closed negative real axis, or the matrix has no
            well-conditioned eigenvectors.
    """
    values, vectors = torch.linalg.eig(matrix.detach().double())
    zero = 1e-12 * values.abs().max()  # the rounding of a zero eigenvalue has any sign
    on_cut = (values.real <= zero) & (values.imag.abs() <= zero)
    if on_cut.any():
        raise ValueError(
            f"the operator has eigenvalue {values[on_cut][0].real.item():.3g} on the closed "
            "negative real axis, so no real power of it exists at fractional times. Ask for whole "
            "steps, fit all layers at their depth-times, or take a family with a generator "
            "(Stable, BlockDiagonal)."
        )
    condition = torch.linalg.cond(vectors).item()
    if condition > CONDITION_LIMIT:
        raise ValueError(
            f"the operator is nearly defective (eigenvector condition {condition:.1e}), so its "
            "fractional powers cannot be trusted. Ask for whole steps, or fit a generator family."
        )
    log: Tensor = vectors @ torch.diag(values.log()) @ torch.linalg.inv(vectors)
    return log.real.to(matrix.dtype)


def fractional_power(matrix: Tensor, exponent: float) -> Tensor:
    """``matrix ** exponent``, real and principal; raises as :func:`logarithm` does."""
    return torch.matrix_exp(exponent * logarithm(matrix).double()).to(matrix.dtype)
