"""Distances between the points of one cloud, block by block, and the scale they set.

Squared distances are ``|a|² + |b|² - 2 a·b`` of centred points. The cancellation in it costs half
the digits of a short distance, so blocks are computed in float64, at half the work of a float32
matrix of all pairs, since only blocks above the diagonal are. Where distances are found that are so
short that more than half is lost, beside a point far out or in clusters far apart, all are computed
from differences instead, which takes longer. Points of any size are brought to size 1 first, by a
power of two, since float32 holds no square of more than 1e38, or of less than 1e-45.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 1024
"""Rows of a block; a pair of blocks takes some 30 MB at a thousand features."""

_SHORT = 1e-5
"""Distances, as a share of how far the outermost point may lie, that products do not tell apart."""


def require_cloud(points: Tensor, what: str = "points") -> None:
    """Refuse what is no cloud of finite points ``(points, features)``."""
    if points.ndim != 2 or len(points) == 0:
        raise ValueError(
            f"{what} must be (points, features) with one point or more; the shape is "
            f"{tuple(points.shape)}."
        )
    if points.is_complex() or not points.is_floating_point():
        raise TypeError(f"{what} must be real and floating; the dtype is {points.dtype}.")
    bad = sum(int((~part.isfinite().all(1)).sum()) for part in torch.split(points, BLOCK))
    if bad:
        raise ValueError(
            f"{bad} of {len(points)} {what} are not finite, and have no distance to the others. "
            "Leave them out, or find out where they come from."
        )


def unit_of(points: Tensor) -> float:
    """A power of two above the largest coordinate of centred points, and at most twice as large."""
    least, most = (end.double() for end in torch.aminmax(points, dim=0))
    mean = _mean(points)
    largest = torch.maximum(most - mean, mean - least).tolist()
    return math.ldexp(1.0, min(math.frexp(max(largest, default=0.0))[1], 1023))


def short(found: Tensor, features: int) -> bool:
    """Whether distances, in units of :func:`unit_of`, are too short to be found by products."""
    return bool(((found > 0) & (found < _SHORT * features**0.5)).any())


def blocks(
    points: Tensor, unit: float, exact: bool = False
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Squared distances between rows and columns, float64, on and above the diagonal of blocks.

    As the product leaves them: those of 0 may be slightly negative. All blocks are in the same
    memory, one after the other, since fresh memory takes the system as long as a pass over it.

    Args:
        points: ``(points, features)``.
        unit: of the distances, see :func:`unit_of`.
        exact: from differences.
    """
    right = points.to(torch.float64, copy=True).div_(unit) if exact else _centred(points, unit)
    few, width = min(BLOCK, len(points)), points.shape[1]
    room, left = (right.new_empty(few, size) for size in (few, width + 2))
    starts = range(0, len(points), BLOCK)
    for start in starts:
        rows = slice(start, min(start + BLOCK, len(points)))
        a = right[rows]
        if not exact:
            # (-2a, |a|², 1) · (b, 1, |b|²) is the squared distance: one product and no pass after.
            a = left[: rows.stop - start]
            torch.mul(right[rows, :width], -2, out=a[:, :width])
            a[:, width], a[:, width + 1] = right[rows, width + 1], 1
        for other in starts[start // BLOCK :]:
            columns = slice(other, min(other + BLOCK, len(points)))
            b = right[columns]
            if exact:
                mode = "donot_use_mm_for_euclid_dist"
                yield rows, columns, torch.cdist(a, b, compute_mode=mode).square_()
            else:
                out = room.flatten()[: len(a) * len(b)].view(len(a), -1)
                yield rows, columns, torch.mm(a, b.T, out=out)


def _mean(points: Tensor) -> Tensor:
    parts = torch.split(points, BLOCK)
    return torch.stack([part.double().sum(0) for part in parts]).sum(0) / len(points)


def _centred(points: Tensor, unit: float) -> Tensor:
    """Centred points in float64, beside each a 1 and its square, ``(points, features + 2)``."""
    mean, width = _mean(points), points.shape[1]
    centred = mean.new_empty(len(points), width + 2)
    parts = torch.split(points, BLOCK), torch.split(centred, BLOCK)
    for part, beside in zip(*parts, strict=True):
        inner = beside[:, :width].copy_(part).sub_(mean).div_(unit)
        beside[:, width] = 1
        torch.sum(inner.square(), 1, out=beside[:, width + 1])
    return centred


def squared_distances(points: Tensor, unit: float, exact: bool = False) -> Tensor:
    """All squared distances, symmetric, float32, ``(points, points)``; see :func:`blocks`."""
    matrix = points.new_empty(len(points), len(points), dtype=torch.float32)
    for rows, columns, squares in blocks(points, unit, exact):
        block = matrix[rows, columns].copy_(squares).clamp_(min=0)
        if rows == columns:
            block.fill_diagonal_(0)
        else:
            matrix[columns, rows] = block.T.contiguous()  # transposing in place is slower
    return matrix


def lengths(points: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Distances between the points of two lists of row numbers, from their differences, float64."""
    parts = zip(torch.split(start, BLOCK), torch.split(end, BLOCK), strict=True)
    return torch.cat([(points[a].double() - points[b].double()).norm(dim=1) for a, b in parts])


def neighbour_distances(points: Tensor) -> Tensor:
    """Distance of each point to the nearest other one, float64, ``(points,)``."""
    unit = unit_of(points)
    own = torch.arange(len(points), device=points.device)
    found = lengths(points, own, _nearest(points, unit))
    if short(found / unit, points.shape[1]):
        found = lengths(points, own, _nearest(points, unit, exact=True))
    return found


def _nearest(points: Tensor, unit: float, exact: bool = False) -> Tensor:
    """Row number of the point nearest to each, ``(points,)``."""
    nearest = points.new_full((len(points),), torch.inf, dtype=torch.float64)
    which = torch.zeros(len(points), dtype=torch.long, device=points.device)
    for rows, columns, squares in blocks(points, unit, exact):
        if rows == columns:
            squares.fill_diagonal_(torch.inf)
        for side, other, axis in ((rows, columns, 1), (columns, rows, 0)):
            least, index = squares.min(axis)
            nearer = least < nearest[side]
            nearest[side] = torch.where(nearer, least, nearest[side])
            which[side] = torch.where(nearer, index + other.start, which[side])
    return which


def scale(points: Tensor) -> float:
    """The one rule for ε: the median of the distances to nearest neighbours.

    Half way from it to the next larger distance: merging scales are themselves distances between
    points, and an ε equal to one would leave a count to rounding.

    Args:
        points: ``(points, features)``, two or more.

    Raises:
        ValueError: fewer than two points, or values that are not finite.
    """
    require_cloud(points)
    if len(points) < 2:
        raise ValueError("a scale needs a distance, and so two points or more; it got one.")
    distances = neighbour_distances(points)
    found = distances.kthvalue(1 + round((len(distances) - 1) / 2)).values
    larger = distances[distances > found]
    return ((found + larger.min()) / 2 if len(larger) else found).item()
