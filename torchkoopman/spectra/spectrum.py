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
    """Eigenvalues of a surrogate's operator, largest modulus first, and how far to trust each.

    Example:
        >>> K = torch.tensor([[0.0, -0.9], [0.9, 0.0]])  # a quarter turn that shrinks
        >>> x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> fitted = tk.DMDFitter().update(tk.Trajectory.of(x, x @ K.T)).surrogate
        >>> spectrum = fitted.spectrum()  # print(spectrum) shows a table
        >>> spectrum.moduli.round(decimals=3), spectrum.frequencies.abs().round(decimals=3)
        (tensor([1.0000, 0.9000, 0.9000], dtype=torch.float64),
         tensor([0.0000, 0.2500, 0.2500], dtype=torch.float64))
    """

    eigenvalues: Tensor
    """λ of K over the whole span; complex128, shape ``(latent,)``."""
    modes: Tensor
    """Right eigenvectors, the directions in latent space; complex128, unit columns,
    shape ``(latent, latent)``."""
    functionals: Tensor
    """Left eigenvectors w with ``wᴴ K = λ wᴴ``; ``wᴴ z`` of a latent state z is the eigenfunction.
    Complex128, unit columns, shape ``(latent, latent)``."""
    residuals: Tensor | None
    """Error of the law φ(end) = λ φ(start) of each eigenfunction φ, relative to the size of
    φ(start); 0 is exact. On rows the fit has not seen, or each row predicted by the fit without its
    sample. Shape ``(latent,)``; NaN where φ is zero on the data, None without data."""
    energies: Tensor | None
    """Share of the latent states' second moment that each mode carries; non-orthogonal modes
    overlap, so shares are normalised to sum to 1. Shape ``(latent,)``; None without data."""
    errors: Tensor | None = None
    """Standard error of each λ by sampling, for independent samples and a fit across the span; more
    where noise may have drawn eigenvalues apart from one; shape ``(latent,)``, None without data.
    Infinite where there are not more samples than latent coordinates."""
    closures: Tensor | None = None
    """How far λ may be off for what the dictionary misses: the part of the law's error that is no
    noise, relative to φ, by the condition of λ; ``(latent,)``, None where no rows were kept."""
    conditions: Tensor | None = None
    """By how many times its size an error of the law may move λ, to first order: 1 for a normal
    operator, in the metric of the data; ``(latent,)``, None without data."""
    steps: int = 1
    """Steps from layer to layer in the span; :attr:`per_step` is λ for one of them."""
    frames: str = ""
    """``"shared"`` where all layers have one frame, so that λ is that of the map between them;
    ``"aligned"`` where each has its own, on which λ depends; empty where it is not known."""

    @property
    def per_step(self) -> Tensor:
        """``λ^(1/steps)``, principal branch; complex, shape ``(latent,)``.

        It is what each layer does if all do the same: 77 over seven layers is 1.86 a layer.
        """
        return (self.rates / self.steps).exp()

    @property
    def rates(self) -> Tensor:
        """ω = log λ, per unit of depth-time (the whole span); complex, shape ``(latent,)``."""
        return self.eigenvalues.log()

    @property
    def moduli(self) -> Tensor:
        """``|λ|``, float64, shape ``(latent,)``."""
        return self.eigenvalues.abs()

    @property
    def frequencies(self) -> Tensor:
        """Turns per span, ``Im ω / 2π``, between -½ and ½; shape ``(latent,)``."""
        return self.rates.imag / (2 * math.pi)

    @property
    def decays(self) -> Tensor:
        """``-Re ω``, per span: positive where a mode shrinks; shape ``(latent,)``."""
        return -self.rates.real

    @property
    def timescales(self) -> Tensor:
        """``-1 / log |λ|``, in spans (as the decays): the time in which a mode shrinks to 1/e.

        As in deeptime and kooplearn, with a lag of one span. Multiply by :attr:`steps` for layers.
        Infinite within 1e-10 of the unit circle, 0 for λ = 0, and -t for a mode that grows by a
        factor e in the time t. Float64, shape ``(latent,)``.
        """
        logs = self.moduli.log()
        return torch.where(logs.abs() <= _ON_CIRCLE, torch.inf, -1 / logs)

    @property
    def radius(self) -> float:
        """Spectral radius, the largest ``|λ|``; 0 if no mode was kept."""
        return max(self.moduli.tolist(), default=0.0)

    def outside(self, tolerance: float = 1e-6) -> int:
        """Number of modes outside the unit circle by more than ``tolerance``."""
        return int((self.moduli > 1 + tolerance).sum())

    def trusted(self, tolerance: float = OFF, energy: float = ENERGY) -> Tensor:
        """Which modes the data confirm: bool, shape ``(latent,)``.

        A mode is trusted if its share of the latent states' energy is at least ``energy``, if the
        standard error of λ is at most ``tolerance · max(1, |λ|)`` and at most ``|λ| / 2``, and if

        * its law holds row by row: the residual is at most ``tolerance``, as in ResDMD (Colbrook &
          Townsend 2024), and at most ``2 · tolerance · |λ|``, since a function that shrinks to
          nearly nothing obeys φ(end) ≈ λ φ(start) for any small λ; and times the condition of λ it
          is at most ``5 · tolerance``, a bound of which λ seldom moves by a fifth; or
        * its law holds in the mean, up to noise: the closure is at most ``tolerance`` and three
          standard errors (0.1 at most), and ``|λ|`` exceeds ``tolerance`` by more than both, since
          otherwise 0 would obey the law as well; the closure is at least ``|λ|`` where 0 predicts
          unseen rows as well.

        So to first order λ is off by at most ``tolerance`` and three standard errors where the law
        holds in the mean, or the operator is normal; one that is trusted row by row can be further
        off else, in the worst case (see :meth:`Surrogate.pseudospectrum`). Spurious eigenvalues, of
        noise or of a dictionary that is not closed under the dynamics, have large residuals,
        closures or conditions; with few rows true ones can have them too.

        Args:
            tolerance: 0.05 by default.
            energy: 1e-9 by default, below which a mode is rounding.

        Raises:
            ValueError: the spectrum was made without data, or a negative threshold.
        """
        found = doubts(self, tolerance, energy)
        return ~torch.stack(list(found.values())).any(0)

    def keep(self, chosen: Tensor) -> Spectrum:
        """The spectrum of the chosen modes alone, such as ``spectrum.keep(spectrum.trusted())``.

        Energies stay shares of the whole.

        Args:
            chosen: bool, shape ``(latent,)``.

        Raises:
            ValueError: it is of another shape or dtype.
        """
        if chosen.dtype != torch.bool or chosen.shape != self.eigenvalues.shape:
            raise ValueError(
                f"chosen has shape {tuple(chosen.shape)} and {chosen.dtype}; expected one bool for "
                f"each of {len(self.eigenvalues)} modes."
            )
        chosen = chosen.cpu()
        told = ("residuals", "energies", "errors", "closures", "conditions")
        known = {name: getattr(self, name) for name in told}
        return replace(
            self,
            eigenvalues=self.eigenvalues[chosen],
            modes=self.modes[:, chosen],
            functionals=self.functionals[:, chosen],
            **{name: each[chosen] for name, each in known.items() if each is not None},
        )

    def table(self, modes: int = 10) -> Table:
        """A row for each mode: λ ± error, ``|λ|``, decay, turns, what its law is judged by, energy.

        Trusted modes come first, then by energy; a ``?`` ends the row of a mode that is not
        :meth:`trusted`. Without data the largest ``|λ|`` come first.
        """
        return table_of(self, modes)

    def summary(self, modes: int = 10) -> str:
        """The same as text."""
        return str(self.table(modes))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Eigenvalues and the unit circle: trusted modes filled, others hollow, area by energy.

        The axes hold the circle and all trusted modes; the title counts the modes outside them.

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
    amplitudes = torch.linalg.pinv(modes)
    functionals = amplitudes.mH / amplitudes.mH.norm(dim=0)
    spectrum = Spectrum(values, modes, functionals, None, None, steps=steps, frames=frames)
    if moments is None or moments.count == 0:
        return spectrum
    told = None
    if evidence is not None and len(evidence.start):
        told = judge(values, modes, functionals, moments, evidence)
    elif ("end", "end") in moments.pairs:
        told = without_rows(values, modes, functionals, moments)
    known = {} if told is None else vars(told)
    return replace(spectrum, energies=shares(amplitudes, moments), **known)
