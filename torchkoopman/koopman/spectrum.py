"""The spectrum of a surrogate's operator: what its eigenvalues are and how far to trust them.

λ are eigenvalues of K over the whole span (discrete time), ω = log λ their rates per unit of depth
(continuous time, principal branch). The residual of an eigenpair is that of ResDMD (Colbrook &
Townsend 2024), from second moments alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchkoopman.observe.moments import Moments


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of a surrogate's operator, largest modulus first, with what belongs to each."""

    eigenvalues: Tensor
    """λ of K over the whole span; complex128, shape ``(latent,)``."""
    modes: Tensor
    """Right eigenvectors, the directions in latent space; complex128, unit columns,
    shape ``(latent, latent)``."""
    functionals: Tensor
    """Left eigenvectors w with ``wᴴ K = λ wᴴ``: ``wᴴ z`` is the eigenfunction. Unit columns."""
    residuals: Tensor | None
    """Error of each eigenfunction's law φ(end) = λ φ(start) on the data of the fit, relative to the
    size of φ(start): 0 is exact. Shape ``(latent,)``; NaN where the data never excite φ, None
    without data."""
    energies: Tensor | None
    """Share of the latent states' second moment that each mode carries; non-orthogonal modes
    overlap, so shares are normalised to sum to 1. Shape ``(latent,)``; None without data."""

    @property
    def rates(self) -> Tensor:
        """ω = log λ, per unit of depth-time (the whole span); complex, shape ``(latent,)``."""
        return self.eigenvalues.log()

    @property
    def moduli(self) -> Tensor:
        """|λ|, shape ``(latent,)``."""
        return self.eigenvalues.abs()

    @property
    def frequencies(self) -> Tensor:
        """Turns per span, ``Im ω / 2π``, between -½ and ½."""
        return self.rates.imag / (2 * math.pi)

    @property
    def decays(self) -> Tensor:
        """``-Re ω``, per span: positive where a mode shrinks."""
        return -self.rates.real

    @property
    def radius(self) -> float:
        """Spectral radius, the largest |λ|."""
        return self.moduli.max().item()

    def outside(self, tolerance: float = 1e-6) -> int:
        """Number of modes outside the unit circle by more than ``tolerance``."""
        return int((self.moduli > 1 + tolerance).sum())

    def summary(self, modes: int = 10) -> str:
        """A table of the leading modes: λ, |λ|, ω, frequency, decay, residual, energy."""
        head = (
            f"{len(self.eigenvalues)} modes, spectral radius {self.radius:.4f}, "
            f"{self.outside()} outside the unit circle"
        )
        lines = [head, f"{'λ (span)':>19} {'|λ|':>7} {'decay':>8} {'turns':>8} {'residual':>9}"]
        lines[1] += f" {'energy':>7}"
        for k in range(min(modes, len(self.eigenvalues))):
            value = self.eigenvalues[k]
            number = f"{value.real:+.4f} {value.imag:+.4f}i"
            residual = "" if self.residuals is None else f"{self.residuals[k]:9.4f}"
            energy = "" if self.energies is None else f"{self.energies[k]:7.1%}"
            lines.append(
                f"{number:>19} {self.moduli[k]:7.4f} {self.decays[k]:+8.4f} "
                f"{self.frequencies[k]:+8.4f} {residual:>9} {energy:>7}"
            )
        if len(self.eigenvalues) > modes:
            lines.append(f"… and {len(self.eigenvalues) - modes} more")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()


@torch.no_grad()
def spectrum_of(matrix: Tensor, moments: Moments | None = None) -> Spectrum:
    """The spectrum of ``matrix`` (K over the span), shape ``(latent, latent)``.

    Args:
        matrix: the operator; it acts on columns, ``z_end ≈ K z_start``.
        moments: of the latent states ``"start"`` and ``"end"``, for residuals and energies.
    """
    K = matrix.detach().cpu().double()
    values, modes = torch.linalg.eig(K)
    order = torch.argsort(values.abs(), descending=True, stable=True)
    values, modes = values[order], modes[:, order]
    # Left eigenvectors as rows of the inverse; a defective K has none, so the pseudo-inverse.
    functionals = torch.linalg.pinv(modes).mH
    functionals = functionals / functionals.norm(dim=0)
    if moments is None or moments.count == 0:
        return Spectrum(values, modes, functionals, None, None)
    return Spectrum(
        values,
        modes,
        functionals,
        _residuals(values, functionals, moments),
        _energies(modes, moments),
    )


def _residuals(values: Tensor, functionals: Tensor, moments: Moments) -> Tensor:
    """√(E|wᴴ z_end - λ wᴴ z_start|² / E|wᴴ z_start|²), each eigenvalue with its functional w."""
    G = moments.second("start", "start").cpu().to(values.dtype)
    A = moments.second("end", "start").cpu().to(values.dtype)
    L = moments.second("end", "end").cpu().to(values.dtype)
    forms = [torch.einsum("ik,ij,jk->k", functionals.conj(), M, functionals) for M in (G, A, L)]
    start, cross, end = forms
    error = end.real - 2 * (values.conj() * cross).real + values.abs().square() * start.real
    # A functional the data never excites has no measurable law; its residual is unknown, hence nan.
    excited = start.real > 1e-14 * G.diagonal().real.sum()
    return torch.where(excited, error.clamp(min=0) / start.real, torch.nan).sqrt()


def _energies(modes: Tensor, moments: Moments) -> Tensor:
    """Share of E|z|² that each mode's component carries, normalised over the modes."""
    G = moments.second("start", "start").cpu().to(modes.dtype)
    amplitudes = torch.linalg.pinv(modes)
    power = torch.einsum("ki,ij,kj->k", amplitudes, G, amplitudes.conj()).real
    return power / power.sum()
