"""Persistence of a cloud of points: when its components merge, when its loops appear and fill.

Vietoris-Rips: at scale ε two points are joined if their distance is at most ε, and every set of
points joined pairwise is filled. The only file that imports gudhi, and only for loops and up.
"""

from __future__ import annotations

from importlib import import_module

import numpy as np
import torch
from torch import Tensor

from torchkoopman.topology.distances import (
    BLOCK,
    lengths,
    require_cloud,
    short,
    squared_distances,
    unit_of,
)

MAX_BYTES = 2 * 2**30
"""Refused beyond: 20 000 points for components, 1 500 for loops."""

_CUBIC = 0.6
"""Bytes per n³ that gudhi 3.13 took for H1 of n points on a circle, its worst case met: 0.56 GB at
1 000 points, 4.2 GB at 2 000. Clouds without a large loop take a tenth of it or less."""


def memory_needed(points: int, features: int, dimension: int = 0) -> int:
    """Bytes that :func:`deaths` (dimension 0) or :func:`diagram` would take at worst.

    Components: the float32 matrix of all pairs and blocks of points in float64. From loops up the
    reduction of gudhi comes on top, whose size depends on the shape; the estimate is that of the
    worst shape met, a circle, and grows by a factor of ``points`` with each dimension.
    """
    block = min(BLOCK, points)
    total = 4 * points**2 + 8 * block * (3 * block + 4 * features) + 8 * points * features
    if dimension > 0:
        # A copy of the matrix in gudhi's hands, and the columns of its reduction.
        total += 60 * points**2 + int(_CUBIC * points ** (dimension + 2))
    return total


def require_memory(points: int, features: int, dimension: int, max_bytes: int) -> None:
    """Refuse a cloud that could take more than ``max_bytes``, before anything is allocated."""
    needed = memory_needed(points, features, dimension)
    if needed <= max_bytes:
        return
    low, high = 0, points
    while high - low > 1:
        middle = (low + high) // 2
        fits = memory_needed(middle, features, dimension) <= max_bytes
        low, high = (middle, high) if fits else (low, middle)
    fewer = "landmarks" if dimension else "points"
    raise ValueError(
        f"H{dimension} of {points} points with {features} features can take "
        f"{needed / 2**30:.2f} GiB, more than max_bytes={max_bytes} ({max_bytes / 2**30:.2f} GiB). "
        f"Take {low} {fewer} or fewer, or raise max_bytes."
    )


def deaths(points: Tensor, *, max_bytes: int = MAX_BYTES) -> Tensor:
    """The scales at which components merge: the edge lengths of a minimum spanning tree (H0).

    All components are born at 0, one for each point; the one that never dies is left out.
    Duplicates merge at 0. Prim's algorithm on a float32 matrix, on the CPU; the lengths of the
    edges are then taken from the points themselves, in float64. Where some are less than 1e-5 of
    the cloud's size, the matrix is formed again from differences, which takes longer.

    Args:
        points: ``(points, features)``.
        max_bytes: refuse what would need more.

    Returns:
        Ascending, float64, on the device of the points, shape ``(points - 1,)``.

    Raises:
        ValueError: no points, values that are not finite, or more memory than ``max_bytes``.
        TypeError: points that are not real and floating.
    """
    require_memory(len(points), points[0].numel() if len(points) else 0, 0, max_bytes)
    require_cloud(points)
    if len(points) == 1:
        return points.new_empty(0, dtype=torch.float64)
    points = points.detach()
    unit = unit_of(points)
    found = lengths(points, *_spanning_tree(squared_distances(points, unit)))
    if short(found / unit, points.shape[1]):
        found = lengths(points, *_spanning_tree(squared_distances(points, unit, exact=True)))
    return found.sort().values


def diagram(points: Tensor, dimension: int = 0, *, max_bytes: int = MAX_BYTES) -> Tensor:
    """Births and deaths of components (0), loops (1), voids (2): the persistence diagram.

    From dimension 1 by ``gudhi.sklearn.RipsPersistence`` (Ripser's algorithm, Bauer 2021) on the
    float32 matrix of distances, with coefficients in Z/11.

    Args:
        points: ``(points, features)``.
        dimension: of the holes.
        max_bytes: refuse what would need more, see :func:`memory_needed`.

    Returns:
        One row ``(birth, death)`` a feature, float64, on the device of the points; the component
        that never dies has death ``inf``.

    Raises:
        ValueError: as for :func:`deaths`, or a negative dimension.
        TypeError: points that are not real and floating.
        ImportError: gudhi is missing (dimension 1 and up).
    """
    if dimension < 0:
        raise ValueError(f"dimension={dimension} must be 0 (components), 1 (loops) or more.")
    if dimension == 0:
        finite = deaths(points, max_bytes=max_bytes)
        ends = torch.cat([finite, finite.new_full((1,), torch.inf)])
        return torch.stack([torch.zeros_like(ends), ends], 1)
    require_memory(len(points), points[0].numel() if len(points) else 0, dimension, max_bytes)
    require_cloud(points)
    points = points.detach()
    unit = unit_of(points)
    squares = squared_distances(points, unit)
    nearest = squares.fill_diagonal_(torch.inf).min()  # 0 may be the product's rounding
    if short(nearest.sqrt().clamp(min=1e-30), points.shape[1]):
        squares = squared_distances(points, unit, exact=True)
    matrix = squares.fill_diagonal_(0).sqrt_().cpu().numpy()
    try:
        # Here and not above: it loads scikit-learn, a second of everybody's start.
        gudhi = import_module("gudhi.sklearn")
    except ImportError as error:
        raise ImportError(
            "loops (dimension 1 and up) are found by gudhi, which is missing here: "
            "pip install gudhi scikit-learn. Components (dimension 0) need neither."
        ) from error
    rips = gudhi.RipsPersistence(dimension, input_type="full distance matrix")
    pairs = rips.fit_transform([matrix])[0]
    found = torch.from_numpy(pairs.astype("float64")).reshape(-1, 2) * unit
    return found[found[:, 0].argsort()].to(points.device)


def _spanning_tree(squares: Tensor) -> tuple[Tensor, Tensor]:
    """Prim's algorithm: both ends of each edge of a minimum spanning tree, as row numbers.

    Each point that joins is tied to the nearest of those before it. In numpy, whose calls on rows
    of some thousand numbers take a fraction of the time of torch's.
    """
    matrix = squares.cpu().numpy()
    closest, distance = (np.full(len(matrix), np.inf, matrix.dtype) for _ in range(2))
    joined, waiting = np.zeros_like(closest), np.full_like(closest, np.inf)
    edges, latest = np.zeros((2, len(matrix) - 1), np.int64), 0
    for edge in edges.T:
        joined[latest], waiting[latest] = np.inf, 0
        np.minimum(closest, matrix[latest], out=closest)
        latest = int(np.add(closest, joined, out=distance).argmin())
        edge[:] = np.add(matrix[latest], waiting, out=distance).argmin(), latest
    start, end = torch.from_numpy(edges).to(squares.device)
    return start, end
