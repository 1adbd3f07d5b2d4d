"""Non-normality: how far an operator's powers are from what its eigenvalues promise.

A normal matrix (K Kᵀ = Kᵀ K) is its spectrum: ‖K^t‖ is the spectral radius to the power t. Others
grow first, and their eigenvalues move under small perturbations (Trefethen & Embree, Spectra and
Pseudospectra, 2005). All norms are those of the latent space as it is: they depend on its
coordinates, which eigenvalues do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from torchkoopman.spectra.matrices import matrix_of
from torchkoopman.spectra.pseudospectrum import pseudospectrum_of
from torchkoopman.tables import Table, Tabular

if TYPE_CHECKING:
    from torch import Tensor

    from torchkoopman.spectra.matrices import System

_ANGLES = 48
"""Directions in which the numerical range is measured; the radius is then exact to 0.05 %."""

_ON_CIRCLE = 1e-6
"""Points this near to the spectral radius are on it, and rounding says on which side."""


@dataclass(frozen=True)
class NonNormality(Tabular):
    """How far powers of a matrix grow beyond what its eigenvalues say; print it.

    Example:
        >>> found = tk.spectra.non_normality(torch.tensor([[0.5, 10.0], [0.0, 0.5]]))
        >>> found.spectral_radius, round(found.norm, 2)  # shrinks in the end, but first grows
        (0.5, 10.02)
        >>> found.departure > 0.99
        True
    """

    departure: float
    """Henrici's √(‖K‖_F² - Σ|λ|²) / ‖K‖_F: 0 for a normal matrix, 1 for a nilpotent one. Rounding
    alone gives about 1e-8."""
    eigenvector_condition: float
    """σ_max / σ_min of the unit eigenvectors: 1 for a normal matrix; a perturbation of norm ε moves
    eigenvalues by at most this times ε (Bauer & Fike). Infinite or very large if defective."""
    spectral_radius: float
    """Largest ``|λ|``."""
    numerical_radius: float
    """Largest ``|vᴴ K v|`` over unit v: between ‖K‖/2 and ‖K‖, and at least the spectral radius."""
    numerical_abscissa: float
    """Largest eigenvalue of (K + Kᵀ)/2: the largest Re vᴴ K v."""
    growth: Tensor
    """‖K^t‖ (spectral norm) for t = 0, 1, …, in spans; float64, shape ``(times,)``."""
    kreiss: float
    """Lower bound, from the pseudospectrum on a grid, of the maximum of ‖K^t‖ / radius^t over all
    t."""

    @property
    def norm(self) -> float:
        """‖K‖, the largest factor by which one span stretches a latent state."""
        return self.growth[1].item()

    @property
    def peak(self) -> tuple[int, float]:
        """The t with the largest ‖K^t‖ among those computed, and that norm."""
        time = int(self.growth.argmax())
        return time, self.growth[time].item()

    @property
    def excess(self) -> float:
        """Largest ‖K^t‖ / radius^t among the times computed: 1 for a normal matrix.

        Transient growth beyond the eigenvalues; infinite for a nilpotent matrix.
        """
        times = torch.arange(len(self.growth)).to(self.growth)
        ratios = self.growth / self.spectral_radius**times
        # Once the powers of a nilpotent matrix vanish, the ratio is 0 / 0 and says nothing.
        return float(ratios[~ratios.isnan()].max())

    def table(self) -> Table:
        """Each quantity with what it would be if the operator were normal."""
        time, peak = self.peak
        rows = [
            ("Henrici departure", self.departure, "0"),
            ("eigenvector condition", self.eigenvector_condition, "1"),
            ("norm", self.norm, f"{self.spectral_radius:.4g}"),
            ("numerical radius", self.numerical_radius, f"{self.spectral_radius:.4g}"),
            ("numerical abscissa", self.numerical_abscissa, "largest Re λ"),
            ("excess growth", self.excess, "1"),
            ("Kreiss lower bound", self.kreiss, "at most 1"),
        ]
        cells = [[name, f"{value:.4g}", normal] for name, value, normal in rows]
        below = f"largest ‖K^t‖ = {peak:.4g} at t = {time} of {len(self.growth) - 1} spans"
        return Table(["", "value", "if normal"], cells, below=[below], text=(0, 2))


@torch.no_grad()
def non_normality(
    operator: System | Tensor, *, horizon: int = 20, points: int = 31, rank: int = 100
) -> NonNormality:
    """How far an operator over a span is from normal, and how far its powers grow because of it.

    The eigenvectors of a normal matrix are orthogonal, and its powers grow as its eigenvalues say.

    Example:
        >>> for K in ([[0.9, 0.0], [0.0, 0.5]], [[0.9, 10.0], [0.0, 0.5]]):
        ...     print(round(tk.spectra.non_normality(torch.tensor(K)).departure, 3))
        0.0
        0.995

    Args:
        operator: a surrogate, whose K over the whole span is taken, or a real square matrix.
        horizon: powers K^t up to this t.
        points: per axis, of the grid for the Kreiss bound.
        rank: largest eigenvalues by whose invariant subspace the Kreiss bound is computed.

    Raises:
        TypeError: neither a surrogate nor a real matrix.
        ValueError: a matrix that is not square or not finite, or ``horizon`` below 1.
    """
    if horizon < 1:
        raise ValueError(f"horizon={horizon} must be at least one span.")
    K = matrix_of(operator)
    values, vectors = torch.linalg.eig(K)
    radius, size = values.abs().max().item(), K.square().sum().item()
    excess = max(0.0, size - values.abs().square().sum().item())
    powers = [torch.eye(len(K)).to(K)]
    for _ in range(horizon):
        powers.append(powers[-1] @ K)
    return NonNormality(
        departure=math.sqrt(excess / size) if size else 0.0,
        eigenvector_condition=torch.linalg.cond(vectors).item(),
        spectral_radius=radius,
        numerical_radius=_numerical_radius(K, values),
        numerical_abscissa=torch.linalg.eigvalsh((K + K.T) / 2)[-1].item(),
        growth=torch.stack([torch.linalg.matrix_norm(power, 2) for power in powers]),
        kreiss=_kreiss(K, radius, points, rank),
    )


def _numerical_radius(matrix: Tensor, values: Tensor) -> float:
    """Max over θ of λ_max((e^{iθ}K + e^{-iθ}Kᵀ)/2); for real K half the circle is enough."""
    angles = torch.linspace(0, math.pi, _ANGLES).to(matrix)
    # The leading eigenvalue's own direction, so that the result is never below its modulus.
    angles = torch.cat([angles, -values[values.abs().argmax()].angle()[None]])
    turned = torch.polar(torch.ones_like(angles), angles)
    forms = ((turn * matrix + (turn * matrix).mH) / 2 for turn in turned)
    return max(float(torch.linalg.eigvalsh(form)[-1]) for form in forms)


def _kreiss(matrix: Tensor, radius: float, points: int, rank: int) -> float:
    """Max of (|z| - radius) / σ_min(K - z I) on a grid that reaches half again beyond the radius.

    The Kreiss constant of K / radius, from below (Trefethen & Embree §14).
    """
    if not radius:
        return math.inf if matrix.any() else 1.0
    x = torch.linspace(-1.5, 1.5, points, dtype=matrix.dtype)
    y = torch.linspace(0, 1.5, points, dtype=matrix.dtype)
    grid = pseudospectrum_of(matrix / radius, kind="matrix", real=x, imag=y, rank=rank)
    beyond = torch.complex(x.expand(points, points), y[:, None]).abs() - 1
    return (beyond / grid.residuals)[beyond > _ON_CIRCLE].amax().item()
