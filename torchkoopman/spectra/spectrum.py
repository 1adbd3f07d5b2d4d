"""The spectrum of a surrogate's operator: what its eigenvalues are and how far to trust them.

λ are eigenvalues of K over the whole span (discrete time), ω = log λ their rates per unit of depth
(continuous time, principal branch). What the data say of each is in ``evidence.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.spectra.evidence import judge, shares, without_rows
from torchkoopman.spectra.matrices import matrix_of
from torchkoopman.spectra.plotting import draw
from torchkoopman.spectra.table import table_of
from torchkoopman.spectra.trust import ENERGY, OFF, doubts
from torchkoopman.tables import Table, Tabular

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from torchkoopman.observe.moments import Moments
    from torchkoopman.spectra.evidence import Evidence

_ON_CIRCLE = 1e-10
"""Moduli this near to 1, relatively, are 1 up to the rounding of an eigenvalue in float64."""


@dataclass(frozen=True)
class Spectrum(Tabular):
    """Eigenvalues of a surrogate's operator, largest modulus first, with what belongs to each."""

    eigenvalues: Tensor
    """λ of K over the whole span; complex128, shape ``(latent,)``."""
    modes: Tensor
    """Right eigenvectors, the directions in latent space; complex128, unit columns,
    shape ``(latent, latent)``."""
    functionals: Tensor
    """Left eigenvectors w with ``wᴴ K = λ wᴴ``: ``wᴴ z`` is the eigenfunction. Unit columns."""
    residuals: Tensor | None
    """Error of each eigenfunction's law φ(end) = λ φ(start), relative to the size of φ(start): 0 is
    exact. On rows the fit has not seen, or each predicted by the fit without its sample. Shape
    ``(latent,)``; NaN where the data never excite φ, None without data."""
    energies: Tensor | None
    """Share of the latent states' second moment that each mode carries; non-orthogonal modes
    overlap, so shares are normalised to sum to 1. Shape ``(latent,)``; None without data."""
    errors: Tensor | None = None
    """Standard error of each λ by sampling, for independent samples and a fit across the span;
    shape ``(latent,)``, None without data. Infinite where samples are no more than functions."""
    closures: Tensor | None = None
    """How much of the law's error is a function of the start and no noise, relative to the size of
    φ; shape ``(latent,)``, None where no rows were kept. See ``evidence.py``."""
    steps: int = 1
    """Layers that the span leads over; :attr:`per_step` is λ for one of them."""
    frames: str = ""
    """``"shared"`` where all layers have one frame, so that λ is that of the map between them;
    ``"aligned"`` where each has its own, on which λ depends; empty where it is not known."""

    @property
    def per_step(self) -> Tensor:
        """``λ^(1/steps)``, principal branch; complex, shape ``(latent,)``.

        What each layer does where all do the same: 77 over seven layers is 1.86 a layer.
        """
        return (self.rates / self.steps).exp()

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

        As in deeptime and kooplearn, with a lag of one span; times :attr:`steps` it is in layers.
        Infinite on the unit circle (within 1e-10 of it, which is rounding), negative for a mode
        that grows, by e in minus that time, and 0 for λ = 0. Float64, shape ``(latent,)``.
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

    def trusted(self, tolerance: float = OFF, energy: float = ENERGY) -> Tensor:
        """Which modes the data bear out: bool, shape ``(latent,)``.

        A mode is trusted if it carries at least the share ``energy`` of the latent states, if λ is
        known, its standard error at most ``tolerance · max(1, |λ|)`` and at most |λ| / 2, and if

        * its law holds row by row: residual at most ``tolerance``, as in ResDMD (Colbrook &
          Townsend 2024), and at most ``2 · tolerance · |λ|``, since whatever shrinks to nearly
          nothing obeys φ(end) ≈ λ φ(start) for any small λ; or
        * it holds in the mean, the rest being noise: closure at most ``tolerance`` and three
          standard errors (0.1 at most), and |λ| above ``tolerance`` by more than both, lest
          0 obey the law as well; the closure is |λ| at least where 0 predicts unseen rows as well.

        So a trusted λ of a normal operator is off by no more than ``tolerance`` and three standard
        errors; far from normal ones can be further off (see :meth:`Surrogate.pseudospectrum`).
        Spurious eigenvalues, of a dictionary that is not closed under the dynamics or of noise,
        have large residuals and closures. A true one may have too, where few rows cannot tell.
        Small functions that grow by much obey a law to a few percent of |λ| in any large
        dictionary, with another λ for other rows: their residual is no smaller than others'.

        Raises:
            ValueError: the spectrum was made without data, or a negative threshold.
        """
        found = doubts(self, tolerance, energy)
        return ~torch.stack(list(found.values())).any(0)

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
            errors=None if self.errors is None else self.errors[chosen],
            closures=None if self.closures is None else self.closures[chosen],
        )

    def table(self, modes: int = 10) -> Table:
        """A row for each mode: λ ± error, |λ|, decay, turns, residual, closure, energy.

        Trusted modes come first, and among equals those that carry most energy; a ``?`` ends the
        row of a mode that is not :meth:`trusted`. Without data the largest |λ| come first.
        """
        return table_of(self, modes)

    def summary(self, modes: int = 10) -> str:
        """The same as text."""
        return str(self.table(modes))

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


@torch.no_grad()
def spectrum_of(
    matrix: Tensor,
    moments: Moments | None = None,
    evidence: Evidence | None = None,
    *,
    steps: int = 1,
    frames: str = "",
) -> Spectrum:
    """The spectrum of ``matrix`` (K over the span), shape ``(latent, latent)``.

    Args:
        matrix: the operator; it acts on columns, ``z_end ≈ K z_start``.
        moments: of the latent states ``"start"`` and ``"end"``, for residuals and energies.
        evidence: rows of them; without any, residuals are estimated from the moments of the fit's
            own rows, and there are no closures.
        steps: layers that K leads over.
        frames: ``"shared"`` or ``"aligned"``, if known; see :attr:`Spectrum.frames`.

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
        return Spectrum(values, modes, functionals, None, None, steps=steps, frames=frames)
    closures = None
    if evidence is None or not len(evidence.start):
        residuals, errors = without_rows(values, modes, functionals, moments)
    else:
        told = judge(values, modes, functionals, moments, evidence)
        residuals, errors, closures = told.residuals, told.errors, told.closures
    energies = shares(modes, moments)
    return Spectrum(
        values, modes, functionals, residuals, energies, errors, closures, steps, frames
    )
