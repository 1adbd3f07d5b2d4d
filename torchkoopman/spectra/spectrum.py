"""The spectrum of a surrogate's operator: what its eigenvalues are and how far to trust them.

λ are eigenvalues of K over the whole span (discrete time), ω = log λ their rates per unit of depth
(continuous time, principal branch). The residual of an eigenpair is that of ResDMD (Colbrook &
Townsend 2024), from second moments alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.spectra.matrices import matrix_of
from torchkoopman.spectra.plotting import draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from torchkoopman.observe.moments import Moments

_ON_CIRCLE = 1e-10
"""Moduli this near to 1, relatively, are 1 up to the rounding of an eigenvalue in float64."""
_BELIEVED = 0.1
"""Default of :meth:`Spectrum.trusted`: the law accounts for 99 % of its prediction's square."""


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
    def timescales(self) -> Tensor:
        """``-1 / log |λ|``, in spans (as the decays): the time in which a mode shrinks to 1/e.

        As in deeptime and kooplearn, with a lag of one span. Infinite on the unit circle (within
        1e-10 of it, which is rounding), negative for a mode that grows, by e in minus that time,
        and 0 for λ = 0. Float64, shape ``(latent,)``.
        """
        logs = self.moduli.log()
        return torch.where(logs.abs() <= _ON_CIRCLE, torch.inf, -1 / logs)

    @property
    def radius(self) -> float:
        """Spectral radius, the largest |λ|; 0 if no mode was kept."""
        return max(self.moduli.tolist(), default=0.0)

    def outside(self, tolerance: float = 1e-6) -> int:
        """Number of modes outside the unit circle by more than ``tolerance``."""
        return int((self.moduli > 1 + tolerance).sum())

    def trusted(self, tolerance: float = _BELIEVED, energy: float = 1e-9) -> Tensor:
        """Which modes the data bear out: bool, shape ``(latent,)``.

        A mode is trusted if its residual is at most ``tolerance · |λ|`` and it carries at least the
        share ``energy`` of the latent states. Relative to |λ|, since whatever shrinks to nearly
        nothing obeys φ(end) ≈ λ φ(start) for any small λ. Spurious eigenvalues, of a dictionary
        that is not closed under the dynamics or of noise, have large residuals (Colbrook & Townsend
        2024). A true one may have too, where the layers themselves are noisy; and with few rows per
        observable a fit agrees with its noise.

        Raises:
            ValueError: the spectrum was made without data, or a negative threshold.
        """
        if self.residuals is None or self.energies is None:
            raise ValueError(
                "this spectrum was made without data, so there are no residuals to judge its "
                "modes by; take surrogate.spectrum() of a surrogate that was fitted, or give "
                "spectrum_of() the moments of the latent states."
            )
        if tolerance < 0 or energy < 0:
            raise ValueError(f"tolerance={tolerance}, energy={energy} must not be negative.")
        lawful = self.residuals <= tolerance * self.moduli
        return lawful & (self.energies >= energy)

    def keep(self, chosen: Tensor) -> Spectrum:
        """The spectrum of the chosen modes alone, such as ``spectrum.keep(spectrum.trusted())``.

        Energies stay shares of the whole. ``chosen`` is bool, shape ``(latent,)``.

        Raises:
            ValueError: it is of another shape or dtype.
        """
        if chosen.dtype != torch.bool or chosen.shape != self.eigenvalues.shape:
            raise ValueError(
                f"chosen has shape {tuple(chosen.shape)} and {chosen.dtype}; expected one bool for "
                f"each of {len(self.eigenvalues)} modes."
            )
        chosen = chosen.cpu()
        return replace(
            self,
            eigenvalues=self.eigenvalues[chosen],
            modes=self.modes[:, chosen],
            functionals=self.functionals[:, chosen],
            residuals=None if self.residuals is None else self.residuals[chosen],
            energies=None if self.energies is None else self.energies[chosen],
        )

    def summary(self, modes: int = 10) -> str:
        """A table of the leading modes: λ, |λ|, decay, turns, residual, energy.

        A ``?`` ends the line of a mode that is not :meth:`trusted`.
        """
        head = (
            f"{len(self.eigenvalues)} modes, spectral radius {self.radius:.4f}, "
            f"{self.outside()} outside the unit circle"
        )
        trusted = torch.ones_like(self.moduli, dtype=torch.bool)
        if self.residuals is not None:
            trusted = self.trusted()
            head += f", {int(trusted.sum())} trusted (residual ≤ {_BELIEVED} |λ|; others: ?)"
        lines = [head, f"{'λ (span)':>19} {'|λ|':>7} {'decay':>8} {'turns':>8} {'residual':>9}"]
        lines[1] += f" {'energy':>7}  "
        for k in range(min(modes, len(self.eigenvalues))):
            value = self.eigenvalues[k]
            number = f"{value.real:+.4f} {value.imag:+.4f}i"
            residual = "" if self.residuals is None else f"{self.residuals[k]:9.4f}"
            energy = "" if self.energies is None else f"{self.energies[k]:7.1%}"
            lines.append(
                f"{number:>19} {self.moduli[k]:7.4f} {self.decays[k]:+8.4f} "
                f"{self.frequencies[k]:+8.4f} {residual:>9} {energy:>7}"
                f"{'  ' if trusted[k] else ' ?'}"
            )
        if len(self.eigenvalues) > modes:
            lines.append(f"… and {len(self.eigenvalues) - modes} more")
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Eigenvalues and the unit circle: trusted modes filled, others hollow, area by energy.

        The view holds the circle and all trusted modes; the title counts what lies beyond it.

        Args:
            ax: matplotlib axes to draw on; None for a new figure.

        Raises:
            ImportError: matplotlib is not installed (the extra ``torchkoopman[plot]``).
        """
        trusted = None if self.residuals is None else self.trusted()
        return draw(self.eigenvalues, trusted, self.energies, ax)

    def __str__(self) -> str:
        return self.summary()


@torch.no_grad()
def spectrum_of(matrix: Tensor, moments: Moments | None = None) -> Spectrum:
    """The spectrum of ``matrix`` (K over the span), shape ``(latent, latent)``.

    Args:
        matrix: the operator; it acts on columns, ``z_end ≈ K z_start``.
        moments: of the latent states ``"start"`` and ``"end"``, for residuals and energies.

    Raises:
        ValueError: the matrix is not square or not finite.
    """
    K = matrix_of(matrix)
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
