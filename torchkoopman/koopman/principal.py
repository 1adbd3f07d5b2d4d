"""Principal coordinates of layers, from moments alone: centre, project, whiten, scale, align.

As in arXiv 2505.12809, §3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.koopman.coordinates import CoordinateOptions, Coordinates, resolve_frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.observe.moments import Moments

_TINY = 1e-70
"""Variance below which the scale of coordinates, one over a deviation, nears float32's overflow."""


_NULL = 1e-12
"""Directions with less than this share of the largest variance count as constant."""


def layer_coordinates(
    moments: Moments, layers: Sequence[str], options: CoordinateOptions
) -> list[Coordinates]:
    """Coordinates of each layer, all of one size.

    Args:
        moments: of the layers; aligning needs the covariance of each layer with the last. One
            frame for all is that of the layers whose own covariance is there.
        layers: names of the variables, first layer first.
        options: the steps.

    Raises:
        ValueError: a layer that is constant, shared frames of layers of different widths, or
            frames of their own without the covariance of each layer.
    """
    widths = {layer: moments.features(layer) for layer in layers}
    if resolve_frames(options.frames, widths) == "shared":
        known = [layer for layer in layers if (layer, layer) in moments.pairs]
        mean, cov = _pooled(moments, known)
        axes = _axes(cov, layers[0], options.massive)
        size = truncation_rank(axes.variances, options.rank, moments.count)
        shared = _principal(mean, axes, size, options.whitening)
        return [shared.clone() for _ in layers]
    unknown = [layer for layer in layers if (layer, layer) not in moments.pairs]
    if unknown:
        raise ValueError(
            f"layers of the widths {widths} have frames of their own, and of {unknown[0]!r} no "
            "covariance was kept to find one (residuals=False). Leave that out, or choose layers "
            "of one width."
        )
    own = {layer: _axes(moments.cov(layer, layer), layer, options.massive) for layer in layers}
    wanted = max(truncation_rank(a.variances, options.rank, moments.count) for a in own.values())
    size = min(wanted, *(truncation_rank(a.variances, -1, moments.count) for a in own.values()))
    frames = [
        _principal(moments.mean(layer), own[layer], size, options.whitening) for layer in layers
    ]
    last = frames[-1]
    return [
        frame.rotated(procrustes(last.weight @ moments.cov(layers[-1], layer) @ frame.weight.T))
        for layer, frame in zip(layers[:-1], frames[:-1], strict=True)
    ] + [last]


def truncation_rank(variances: Tensor, rank: int | float, rows: float) -> int:
    """Number of leading directions to keep.

    Args:
        variances: eigenvalues of a covariance, descending.
        rank: -1, 0, a fraction or a number; see :class:`CoordinateOptions`.
        rows: how many rows the covariance is of, or the sum of their weights.
    """
    varying = max(1, int((variances > _NULL * variances[0]).sum()))
    if rank == -1:
        return varying
    if rank == 0:
        beta = min(len(variances), rows) / max(len(variances), rows)
        singular = variances.clamp(min=0).sqrt()[: max(1, int(min(len(variances), rows)))]
        # Gavish & Donoho (2014), equation 5: the optimal threshold when the noise is unknown.
        omega = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43
        return min(varying, max(1, int((singular > omega * singular.median()).sum())))
    if rank < 1:
        energy = variances.clamp(min=0).cumsum(0) / variances.clamp(min=0).sum()
        return min(varying, int((energy < rank).sum()) + 1)
    return min(varying, int(rank))


def procrustes(cross: Tensor) -> Tensor:
    """The rotation R that minimises E|R a - b|², from ``cross`` = E[b aᵀ]."""
    U, _, Vh = torch.linalg.svd(cross)
    return torch.matmul(U, Vh)


def _pooled(moments: Moments, layers: Sequence[str]) -> tuple[Tensor, Tensor]:
    means = torch.stack([moments.mean(layer) for layer in layers])
    covs = (_moving(moments.cov(layer, layer), layer) for layer in layers)
    within = reduce(Tensor.add_, covs)  # in place
    return means.mean(0), within.div_(len(layers)).add_(means.T.cov(correction=0))


def _moving(cov: Tensor, layer: str) -> Tensor:
    """The covariance, if it says that the layer varies and is known."""
    if not cov.sum().isfinite() and not cov.isfinite().all():
        raise ValueError(
            f"layer {layer!r} has states so large that their covariance is not finite; leave such "
            "rows out with a mask, or choose another layer."
        )
    if 0 < cov.diagonal().max() < _TINY:
        raise ValueError(
            f"layer {layer!r} varies by no more than {cov.diagonal().max().sqrt():.1e}, below what "
            "coordinates of float32 can be scaled from; multiply its states by a constant first."
        )
    if not cov.diagonal().max() > 0:
        raise ValueError(
            f"layer {layer!r} is constant over the {cov.shape[0]} features of all rows seen; there "
            "is no state to follow. Choose another layer, or stream more than one sample."
        )
    return cov


@dataclass(frozen=True)
class _Axes:
    """Principal axes of features divided by ``scales``."""

    variances: Tensor
    """Descending, ``(features,)``."""
    vectors: Tensor
    """Columns, ``(features, features)``."""
    scales: Tensor
    """1, and more for massive features, ``(features,)``."""


def _axes(cov: Tensor, layer: str, massive: float) -> _Axes:
    """Principal axes of a covariance, which is overwritten; features scaled down to ``massive``."""
    _moving(cov, layer)
    deviations = cov.diagonal().clamp(min=0).sqrt()
    varying = deviations[deviations > _NULL * deviations.max()]
    scales = (deviations / (massive * varying.median())).clamp(min=1)
    values, vectors = torch.linalg.eigh(cov.div_(scales[:, None]).div_(scales))
    return _Axes(values.flip(0), vectors.flip(1), scales)


def _principal(mean: Tensor, axes: _Axes, size: int, whitening: float) -> Coordinates:
    """Centered, projected, whitened and scaled coordinates; their mean square over features is 1.

    The Koopman-autoencoder paper divides by the Frobenius norm of the whole data matrix, which
    depends on the number of samples; the root mean square does not.
    """
    variances, vectors = axes.variances[:size], axes.vectors[:, :size]
    spread = whitening + (1 - whitening) * (variances / variances.mean()).rsqrt()
    spread = spread / (spread.square() * variances).mean().sqrt()
    inverse = axes.scales[:, None] * vectors / spread
    return Coordinates((vectors * spread / axes.scales[:, None]).T, mean, inverse)
