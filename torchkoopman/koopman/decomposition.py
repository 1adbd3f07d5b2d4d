"""An operator taken apart into modes: ``K(t) = V diag(λ^t) Wᴴ`` with ``Wᴴ V = I``.

The eigenvectors are those of one step (or of the generator), which are eigenvectors of K at every
time. Those of K over the span need not be: two eigenvalues of the step, such as ±0.9, may have one
power, and then any mix of their vectors is an eigenvector of the power.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from torchkoopman.koopman.operators import BlockDiagonal, Stable
from torchkoopman.koopman.powers import CONDITION_LIMIT
from torchkoopman.spectra.matrices import matrix_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.koopman.operator import Operator
    from torchkoopman.spectra.spectrum import Spectrum

_ZERO = 1e-12
"""Eigenvalues below this share of the largest are zero up to rounding."""


@dataclass(frozen=True)
class Decomposition:
    """Eigenvalues and both kinds of eigenvectors of an operator, in a given order."""

    values: Tensor
    """Eigenvalues of one step, or rates ω of a generator; complex128, shape ``(modes,)``."""
    steps: int | None
    """Steps in the span; None for a generator."""
    vectors: Tensor
    """V: unit columns, directions in latent space; complex128, shape ``(latent, modes)``."""
    covectors: Tensor
    """W with ``Wᴴ V = I``: ``wᴴ z`` is the eigenfunction; complex128, shape ``(latent, modes)``."""
    conjugates: Tensor
    """Index of each mode's complex conjugate; its own for a real mode. Shape ``(modes,)``."""
    condition: float
    """σ_max / σ_min of V: by as much rounding and perturbations are magnified in the modes."""

    @property
    def eigenvalues(self) -> Tensor:
        """λ of K over the whole span, shape ``(modes,)``."""
        return self.powers([1.0])[0]

    def powers(self, times: Sequence[float]) -> Tensor:
        """λ^t at depth-times, complex128, shape ``(times, modes)``; principal between steps.

        Raises:
            ValueError: a time that is not finite or not whole steps where an eigenvalue is negative
                (no real operator exists there), or one before 0 where an eigenvalue is 0.
        """
        return torch.stack([self._power(float(time)) for time in times])

    def keep(self, chosen: Tensor) -> Decomposition:
        """The chosen modes alone, by index; partners that are left out point to -1."""
        places = {int(old): new for new, old in enumerate(chosen.tolist())}
        partners = [places.get(k, -1) for k in self.conjugates[chosen].tolist()]
        return Decomposition(
            self.values[chosen],
            self.steps,
            self.vectors[:, chosen],
            self.covectors[:, chosen],
            torch.tensor(partners, dtype=torch.long),
            self.condition,
        )

    def _power(self, time: float) -> Tensor:
        if self.steps is None:
            power = torch.exp(time * self.values)
        else:
            power = self._steps(time * self.steps)
        if not power.isfinite().all():
            raise ValueError(
                f"time {time} takes powers that are not finite; times are depth-times from 0 (the "
                "first layer) to 1 (the last), and an operator with the eigenvalue 0 has no past."
            )
        return power

    def _steps(self, count: float) -> Tensor:
        """The power ``count`` of a discrete operator's eigenvalues."""
        if abs(count - round(count)) < 1e-6:
            # Multiplied out, so that real stay real and conjugates conjugate.
            factor = self.values if count >= 0 else 1 / self.values
            power = torch.ones_like(self.values)
            for _ in range(abs(round(count))):
                power = power * factor
            return power
        zero = _ZERO * max(self.values.abs().tolist(), default=0.0)
        negative = (self.values.real < -zero) & (self.values.imag.abs() <= zero)
        if negative.any():
            raise ValueError(
                f"{count:.4g} steps of the operator are asked for, and its eigenvalue "
                f"{self.values[negative][0].real.item():.3g} has no real power there. Ask for "
                "whole steps, choose modes without it, or fit all layers at their depth-times "
                "(dynamics='step')."
            )
        rooted = torch.exp(count * self.values.log())
        return torch.where(self.values.abs() <= zero, torch.inf if count < 0 else 0, rooted)


@torch.no_grad()
def decompose(operator: Operator, like: Spectrum) -> Decomposition:
    """The modes of an operator, ordered as those of ``like``, the spectrum of K over its span.

    Raises:
        ValueError: the operator is defective, or so nearly that its modes are rounding; or it is
            not finite.
    """
    matrix, steps = _matrix(operator)
    values, vectors = torch.linalg.eig(matrix_of(matrix))
    condition = torch.linalg.cond(vectors).item()
    if not condition < CONDITION_LIMIT:
        raise ValueError(
            f"the operator has no usable basis of eigenvectors: their condition is {condition:.1e} "
            f"(limit {CONDITION_LIMIT:.0e}), so modes would be mostly rounding. Repeated "
            "eigenvalues with too few eigenvectors, Jordan blocks, do this. pseudospectrum() and "
            "non_normality() still hold; for modes fit with a larger ridge, a lower rank or fewer "
            "observables."
        )
    upper = (values.imag > 0).nonzero().flatten()
    conjugates = torch.arange(len(values))
    # LAPACK returns the conjugates of a real matrix side by side, the upper one first.
    conjugates[upper], conjugates[upper + 1] = upper + 1, upper
    covectors = torch.linalg.inv(vectors).mH
    raw = Decomposition(values, steps, vectors, covectors, conjugates, condition)
    return raw.keep(_order(raw, like))


def _order(found: Decomposition, like: Spectrum) -> Tensor:
    """Index of each of the spectrum's modes among those found: of one eigenvalue and direction."""
    scale = like.eigenvalues.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    distance = (like.eigenvalues[:, None] - found.eigenvalues).abs() / scale
    angle = 1 - (like.modes.mH @ found.vectors).abs().clamp(max=1)
    return torch.from_numpy(linear_sum_assignment((distance + angle).numpy())[1])


def _matrix(operator: Operator) -> tuple[Tensor, int | None]:
    """The matrix of one step and how many there are, or the generator and None."""
    if isinstance(operator, Stable):
        return operator.generator(), None
    if isinstance(operator, BlockDiagonal):
        return _blocks(operator), None
    return operator.matrix(1 / operator.steps), operator.steps


def _blocks(operator: BlockDiagonal) -> Tensor:
    """The generator of 2×2 blocks: ``[[-decay, -frequency], [frequency, -decay]]``."""
    diagonal = -operator.decay.repeat_interleave(2)[: operator.latent]
    turn = torch.zeros(operator.latent - 1).to(diagonal)
    turn[::2] = operator.frequency
    return diagonal.diag() + turn.diag(-1) - turn.diag(1)
