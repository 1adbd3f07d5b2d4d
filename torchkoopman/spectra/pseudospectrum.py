"""Pseudospectra: where in the complex plane an operator almost has an eigenvalue.

Two kinds, both as a function of z:

    "residual"   res(z) = min_w √(E|wᴴ z_end - z wᴴ z_start|² / E|wᴴ z_start|²)
    "matrix"     σ_min(K - z I)

The first asks the data: is there *any* function in the dictionary that nearly obeys φ(end) =
z φ(start)? It is the residual pseudospectrum of ResDMD (Colbrook & Townsend, Rigorous data-driven
computation of spectral properties of Koopman operators, CPAM 2024), from streamed moments alone.
The second asks the matrix how far an eigenvalue can move under a perturbation of norm ε (Trefethen
& Embree, Spectra and Pseudospectra, 2005); it knows nothing of the data, and a spurious eigenvalue
has σ_min = 0 like a true one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from torchkoopman.spectra.matrices import matrix_of
from torchkoopman.spectra.plotting import draw_levels
from torchkoopman.spectra.resolvents import EXCITED, of_data, of_matrix
from torchkoopman.tables import Table, Tabular

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from torchkoopman.observe.moments import Moments

Kind = Literal["residual", "matrix"]

_CHUNK = 2**22
"""Matrix entries worked on at a time: 64 MB of complex128."""


@dataclass(frozen=True)
class Pseudospectrum(Tabular):
    """How nearly each point of a grid in the complex plane is an eigenvalue; print it.

    Made by :meth:`Surrogate.pseudospectrum`. For the kind ``"matrix"`` the value at z is the
    smallest singular value of K - z I (Trefethen & Embree 2005), for ``"residual"`` the least
    relative error of φ(end) = z φ(start) over functions φ (ResDMD, Colbrook & Townsend 2024).

    Example:
        >>> K = torch.tensor([[0.0, -0.9], [0.9, 0.0]])  # eigenvalues 0.9i and -0.9i
        >>> x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> fitted = tk.DMDFitter().update(tk.Trajectory.of(x, x @ K.T)).surrogate
        >>> near = fitted.pseudospectrum()
        >>> near.contains(0.9j, 0.1), near.contains(0.5, 0.1)
        (True, False)
    """

    real: Tensor
    """Real parts of the grid's columns, float64, ascending."""
    imag: Tensor
    """Imaginary parts of the grid's rows, float64, ascending."""
    residuals: Tensor
    """The values, float64, shape ``(imag, real)``; those below about 1e-7 are rounding."""
    kind: Kind
    """``"residual"``, of the data, or ``"matrix"``, of the operator alone."""
    kept: int
    """Directions over which the minimum is taken; with fewer than ``latent`` values are upper
    bounds."""
    latent: int
    """Size of the operator."""
    beyond: int = 0
    """Number of eigenvalues outside the grid: of K in the kept directions, or for ``"residual"`` of
    the regression in them."""

    @property
    def resolution(self) -> float:
        """Largest distance of a point within the grid to its nearest grid point.

        Values change by at most the distance, so no value between grid points is off by more.
        """
        return math.hypot(self.real.diff().max().item(), self.imag.diff().max().item()) / 2

    def at(self, z: complex) -> float:
        """The value at the grid point nearest to ``z``.

        Raises:
            ValueError: z lies outside the grid.
        """
        z = complex(z)
        spans = [(axis[0].item(), axis[-1].item()) for axis in (self.real, self.imag)]
        inside = all(
            low <= part <= high for (low, high), part in zip(spans, (z.real, z.imag), strict=True)
        )
        if not inside:
            (left, right), (bottom, top) = spans
            raise ValueError(
                f"z={z} lies outside the grid, real parts {left:.3g} to {right:.3g} and imaginary "
                f"parts {bottom:.3g} to {top:.3g}; compute the pseudospectrum on a larger grid."
            )
        column = (self.real - z.real).abs().argmin()
        row = (self.imag - z.imag).abs().argmin()
        return self.residuals[row, column].item()

    def contains(self, z: complex, epsilon: float) -> bool:
        """Whether the grid point nearest to ``z`` is in the ε-pseudospectrum."""
        return self.at(z) <= _positive(epsilon)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Contours at powers of ten, or of equal ratios where few lie between, and the unit circle.

        Args:
            ax: matplotlib axes to draw on; None for a new figure.

        Raises:
            ImportError: matplotlib is not installed (the extra ``torchkoopman[plot]``).
        """
        name = "least residual" if self.kind == "residual" else "least singular value of K - z I"
        return draw_levels(self.real, self.imag, self.residuals, name, ax)

    def region(self, epsilon: float) -> Tensor:
        """The ε-pseudospectrum on the grid: bool, shape ``(imag, real)``."""
        return self.residuals <= _positive(epsilon)

    def radius(self, epsilon: float) -> float:
        """Pseudospectral radius on the grid, the largest ``|z|`` with a value of at most ε.

        NaN where no grid point has one; a lower bound where the region touches the grid's edge.
        """
        moduli = torch.complex(self.real.expand_as(self.residuals), self.imag[:, None]).abs()
        moduli = moduli[self.region(epsilon)]
        return moduli.max().item() if len(moduli) else math.nan

    def table(self) -> Table:
        """Area and radius of the ε-pseudospectrum for a few ε; above them what was computed."""
        rows, columns = self.residuals.shape
        beyond = f"; {self.beyond} eigenvalues outside of the grid" if self.beyond else ""
        above = (
            f"{self.kind} pseudospectrum on {columns} × {rows} points, resolution "
            f"{self.resolution:.3g}; {self.kept} of {self.latent} directions{beyond}"
        )
        cell = self.real.diff().mean().item() * self.imag.diff().mean().item()
        cells = []
        for epsilon in (0.3, 0.1, 0.03, 0.01):
            region = self.region(epsilon)
            edge = torch.cat([region[0], region[-1], region[:, 0], region[:, -1]]).any()
            numbers = f"{int(region.sum()) * cell:.4f}", f"{self.radius(epsilon):.4f}"
            note = "reaches the grid's edge" if edge else ""
            cells.append([f"{epsilon:.2f}", *numbers, note])
        return Table(["ε", "area", "radius", ""], cells, [above], text=(3,))


@torch.no_grad()
def pseudospectrum_of(
    matrix: Tensor,
    moments: Moments | None = None,
    *,
    kind: Kind = "residual",
    real: Tensor | None = None,
    imag: Tensor | None = None,
    points: int = 61,
    rank: int = 100,
    tolerance: float = EXCITED,
    cover: Tensor | None = None,
) -> Pseudospectrum:
    """The pseudospectrum of an operator over a span.

    Args:
        matrix: K, shape ``(latent, latent)``. The kind ``"residual"`` only takes its size: the
            data are asked, not the fit.
        moments: of the latent states ``"start"`` and ``"end"``; needed for ``"residual"``.
        kind: ``"residual"`` or ``"matrix"``.
        real: real parts of the grid, ascending; by default ``points`` that cover, with a tenth to
            spare, the unit disk and the eigenvalues: of K, or for ``"residual"`` of the regression
            in the kept directions, without those of directions that hardly vary. With ``cover``
            the unit disk and those points instead.
        imag: imaginary parts likewise. Values at z and z̄ agree and are computed once.
        points: per axis of the default grid; odd, so that the real axis is on it.
        rank: directions at most. For ``"residual"`` those in which the latent states at the start
            are largest; for ``"matrix"`` the invariant subspace of the eigenvalues of largest
            modulus. Restricting can only raise the values; costs grow with its cube.
        tolerance: directions with a smaller share of the largest second moment are dropped.
        cover: points of the plane for the default grid to cover, complex, such as the eigenvalues
            that are trusted; may be empty.

    Raises:
        ValueError: an unknown kind, no moments, moments of another size, no direction excited, or
            a grid that is not ascending.
    """
    K = matrix_of(matrix)
    if rank < 1:
        raise ValueError(f"rank={rank} must be at least 1.")
    if kind == "residual":
        smallest, values = of_data(len(K), moments, rank, tolerance)
    elif kind == "matrix":
        smallest, values = of_matrix(K, rank)
    else:
        raise ValueError(f"kind={kind!r} is unknown; choose 'residual' or 'matrix'.")
    covered = values if cover is None else cover.detach().cpu()
    extent = 1.1 * max([1.0, *covered.abs().tolist()])
    default = torch.linspace(-extent, extent, points, dtype=torch.float64)
    x, y = _axis(real, default, "real"), _axis(imag, default, "imag")
    # Equal heights above and below the axis may differ by rounding, and are one computation.
    highest = y.abs().max()
    heights, place = torch.unique((y.abs() / highest).round(decimals=12), return_inverse=True)
    heights = heights * highest
    z = torch.complex(x.expand(len(heights), -1), heights[:, None].expand(-1, len(x))).flatten()
    parts = torch.split(z, max(1, _CHUNK // len(values) ** 2))
    found = torch.cat([smallest(part) for part in parts]).view(len(heights), -1)
    inside = (values.real >= x[0]) & (values.real <= x[-1])
    inside &= (values.imag >= y[0]) & (values.imag <= y[-1])
    beyond = len(values) - int(inside.sum())
    return Pseudospectrum(x, y, found[place], kind, len(values), len(K), beyond)


def _axis(given: Tensor | None, default: Tensor, name: str) -> Tensor:
    """One axis of the grid, checked."""
    axis = default if given is None else given.detach().cpu().double()
    if axis.ndim != 1 or len(axis) < 2 or not (axis.isfinite().all() and (axis.diff() > 0).all()):
        raise ValueError(
            f"the grid's {name} axis must be at least two ascending finite numbers; got "
            f"{'points=' + str(len(default)) if given is None else given.tolist()}."
        )
    return axis


def _positive(epsilon: float) -> float:
    if not epsilon > 0:
        raise ValueError(f"epsilon={epsilon} must be positive.")
    return epsilon
