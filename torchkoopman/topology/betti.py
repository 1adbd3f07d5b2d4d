"""Betti curves: how many holes a cloud has at each scale, with a band; how far apart two are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.pictures import MAIN, axes_for
from torchkoopman.topology.persistence import MAX_BYTES, diagram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_SHARE = 0.8
"""Share of the points in a subsample. Half would need no rescaling of the spread, but half the
points have other loops."""
_LEVEL = 0.9
"""The band holds this much of the subsamples' spread."""


@dataclass(frozen=True)
class BettiCurve:
    """Betti number of one dimension against the scale ε: features born by then and not yet dead.

    The curve is a step function that is kept whole: values at any ε and distances are exact,
    whatever :attr:`scales` it is listed at.

    Example:
        >>> angles = 2 * torch.pi * torch.arange(40) / 40
        >>> circle = torch.stack([angles.cos(), angles.sin()], 1)
        >>> loops = tk.topology.betti_curve(circle, dimension=1)
        >>> [loops.at(epsilon) for epsilon in (0.1, 0.5, 1.9)]  # points, a circle, all joined
        [0, 1, 0]
    """

    dimension: int
    """0 counts components, 1 loops, 2 voids."""
    births: Tensor
    """Scales at which features appear: ascending, float64, ``(features,)``."""
    deaths: Tensor
    """Scales at which they disappear: ascending, float64, ``(features,)``, so not in the order of
    the births; ``inf`` for the component that never disappears."""
    scales: Tensor
    """Scales at which the curve is listed: ascending, ``(scales,)``. Integrals end at the last."""
    values: Tensor
    """Betti numbers at the scales, ``(scales,)``."""
    low: Tensor
    """Lower end of the 90 % band at the scales, ``(scales,)``; the value without subsamples."""
    high: Tensor
    """Upper end of the band, ``(scales,)``."""

    def plot(self, ax: Axes | None = None, label: str = "", color: str = MAIN) -> Axes:
        """The Betti number against the scale, with its band.

        Args:
            ax: matplotlib axes to draw on; None for a new figure.
            label: what the legend calls it.
            color: of the line and of the band.

        Raises:
            ImportError: matplotlib is not installed (the extra ``torchkoopman[plot]``).
        """
        ax = axes_for(ax)
        scales, low, high = (x.cpu().numpy() for x in (self.scales, self.low, self.high))
        ax.step(scales, self.values.cpu().numpy(), where="post", color=color, label=label or None)
        ax.fill_between(scales, low, high, step="post", color=color, alpha=0.2, linewidth=0)
        ax.set(xlabel="ε", ylabel=f"β{self.dimension}", ylim=(0, None))
        if label:
            ax.legend(fontsize=8, frameon=False)
        return ax

    def at(self, scale: float) -> int:
        """The Betti number at any scale."""
        return int(_counts(self.births, self.deaths, self.births.new_tensor([scale])))

    def area(self, within: tuple[float, float] | None = None) -> float:
        """Integral of the curve over ε, from 0 to the last scale, or ``within`` a part of it."""
        low, high = self._range(within)
        held = self.deaths.clamp(low, high).sum() - self.births.clamp(low, high).sum()
        return held.item()

    def spread(self) -> float:
        """Half the band's area over the curve's, by trapezia between the scales; 0 without a band.

        It is about how far the curve of another sample of as many points lies: compare it with
        :meth:`relative` between clouds of different rows. Clouds of the same rows vary together,
        and differ less.
        """
        area = self.area()
        width = torch.trapezoid((self.high - self.low).double(), self.scales)
        return 0.0 if area == 0 else float(width) / 2 / area

    def distance(self, other: BettiCurve, within: tuple[float, float] | None = None) -> float:
        """L1 distance, the integral of the absolute difference over the scales: a metric.

        In dimension 0, for clouds of n points, it is n times the 1-Wasserstein distance between the
        deaths, of which those beyond the last scale count as that. With ``within`` only that part
        of the range counts; parts add up.

        Raises:
            ValueError: curves of different dimensions or scales.
        """
        if self.dimension != other.dimension or not torch.equal(self.scales, other.scales):
            raise ValueError(
                f"curves are compared on the same scales in one dimension; these are of H"
                f"{self.dimension} up to {self._top():.4g} at {len(self.scales)} scales and H"
                f"{other.dimension} up to {other._top():.4g} at {len(other.scales)}. "
                "Give betti_curve() the scales of the other curve."
            )
        low, high = self._range(within)
        ends = [self.births, self.deaths, other.births, other.deaths]
        steps = torch.cat([*ends, ends[0].new_tensor([low, high])]).clamp(low, high).sort().values
        mine = _counts(self.births, self.deaths, steps[:-1])
        theirs = _counts(other.births, other.deaths, steps[:-1])
        return float(((mine - theirs).abs() * steps.diff()).sum())

    def relative(self, other: BettiCurve, within: tuple[float, float] | None = None) -> float:
        """:meth:`distance` divided by this curve's whole area: 0 for the same curve.

        Infinite if this curve has no area and the other has.
        """
        distance, area = self.distance(other, within), self.area()
        if area == 0:
            return 0.0 if distance == 0 else float("inf")
        return distance / area

    def _top(self) -> float:
        return self.scales[-1].item()

    def _range(self, within: tuple[float, float] | None) -> tuple[float, float]:
        low, high = (0.0, self._top()) if within is None else within
        return max(low, 0.0), min(max(high, low), self._top())


def betti_curve(
    points: Tensor,
    dimension: int = 0,
    *,
    scales: int | Tensor = 64,
    subsamples: Sequence[Tensor] = (),
    max_bytes: int = MAX_BYTES,
) -> BettiCurve:
    """The Betti curve of a cloud of points, from its Vietoris–Rips persistence (by gudhi).

    Example:
        >>> angles = 2 * torch.pi * torch.arange(40) / 40
        >>> circle = torch.stack([angles.cos(), angles.sin()], 1)
        >>> components = tk.topology.betti_curve(circle)
        >>> components.at(0.1), components.at(0.2)  # neighbours are 0.157 apart
        (40, 1)

    Args:
        points: ``(points, features)``.
        dimension: 0 for components, 1 for loops.
        scales: at which to list the curve, ascending; or how many, spaced evenly in log ε from the
            first percentile of the positive deaths to the last finite death.
        subsamples: row numbers of each subsample, for the band of the curve.
        max_bytes: refuse what would need more memory; 2 GiB by default.

    Raises:
        ValueError: too much memory, fewer than two points, points that are not finite, or scales
            that are none or do not ascend.
        ImportError: loops without gudhi.
    """
    if not (scales > 0 if isinstance(scales, int) else _ascends(scales)):
        raise ValueError(
            f"scales={scales} must be one row of numbers that ascend, as a tensor, or how many; "
            "take torch.as_tensor(scales).flatten().sort().values."
        )
    pairs = diagram(points, dimension, max_bytes=max_bytes)
    births, deaths = (column.sort().values for column in pairs.T)
    grid = _scales(deaths, scales) if isinstance(scales, int) else scales.to(births)
    values = _counts(births, deaths, grid)
    band = values, values
    if subsamples:
        parts = [diagram(points[rows], dimension, max_bytes=max_bytes) for rows in subsamples]
        curves = [
            _counts(part[:, 0].sort().values, part[:, 1].sort().values, grid) for part in parts
        ]
        band = _band(values, torch.stack(curves), len(subsamples[0]) / len(points))
    return BettiCurve(dimension, births, deaths, grid, values, *band)


def subsamples(points: int, count: int, generator: torch.Generator | None = None) -> list[Tensor]:
    """Row numbers of ``count`` subsamples of four fifths of the points, for a band.

    They are drawn without replacement. The bootstrap draws with replacement, and its duplicates,
    a third of the points, would be components that merge at scale 0.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    size = max(1, int(_SHARE * points))
    return [torch.randperm(points, generator=generator)[:size] for _ in range(count)]


def _ascends(scales: object) -> bool:
    return isinstance(scales, Tensor) and scales.ndim == 1 and bool((scales.diff() >= 0).all())


def _counts(births: Tensor, deaths: Tensor, scales: Tensor) -> Tensor:
    """Features born and not dead at each scale; both ascending."""
    born = torch.searchsorted(births.contiguous(), scales, right=True)
    return born - torch.searchsorted(deaths.contiguous(), scales, right=True)


def _scales(deaths: Tensor, count: int) -> Tensor:
    """Scales of a cloud's own, evenly in log ε; all zero if nothing dies after 0."""
    finite = deaths[deaths.isfinite() & (deaths > 0)]
    if len(finite) == 0:
        return deaths.new_zeros(count)
    low, high = finite[len(finite) // 100], finite[-1]
    weight = torch.linspace(0, 1, count, dtype=deaths.dtype, device=deaths.device)
    grid = low * (high / low) ** weight
    grid[-1] = high  # not a rounding error below the last death
    return grid


def _band(values: Tensor, curves: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The curve times its subsamples' spread about their mean.

    The spread is relative because a subsample of m of n points has fewer components: where all
    points stand alone it counts m. Drawn without replacement, subsamples vary m / (n - m) times too
    little in variance (the delete-d jackknife: Shao & Wu 1989, "A general theory for jackknife
    variance estimation").
    """
    curves = curves.double()
    mean = curves.mean(0)
    ratio = torch.where(mean > 0, curves / mean.clamp(min=1e-300), 1.0) - 1
    tail = (1 - _LEVEL) / 2
    ends = torch.quantile(ratio, torch.tensor([tail, 1 - tail]).to(ratio), dim=0)
    stretched = 1 + ends * (share / max(1 - share, 1e-12)) ** 0.5
    low, high = values * stretched[0], values * stretched[1]
    return low.clamp(min=0).minimum(values), high.maximum(values)
