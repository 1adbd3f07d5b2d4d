"""Principal coordinates of layers, from moments alone: centre, project, whiten, scale, align.

As in arXiv 2505.12809, §3.3.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.koopman.axes import NULL, Axes
from torchkoopman.koopman.coordinates import CoordinateOptions, Coordinates, resolve_frames
from torchkoopman.observe.few_rows import FewRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.observe.moments import Moments


def layer_coordinates(
    moments: Moments | FewRows, layers: Sequence[str], options: CoordinateOptions
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
        known = [layer for layer in layers if _knows(moments, layer)]
        mean, axes = _pooled(moments, known, options)
        size = truncation_rank(axes.variances, options.rank, moments.count)
        shared = axes.coordinates(mean, size, options.whitening)
        return [shared.clone() for _ in layers]
    unknown = [layer for layer in layers if not _knows(moments, layer)]
    if unknown:
        raise ValueError(
            f"layers of the widths {widths} have frames of their own, and of {unknown[0]!r} no "
            "covariance was kept to find one (residuals=False). Leave that out, or choose layers "
            "of one width."
        )
    own = {layer: _axes(moments, layer, options) for layer in layers}
    wanted = max(truncation_rank(a.variances, options.rank, moments.count) for a in own.values())
    size = min(wanted, *(truncation_rank(a.variances, -1, moments.count) for a in own.values()))
    frames = [
        own[layer].coordinates(moments.mean(layer), size, options.whitening) for layer in layers
    ]
    last = frames[-1]
    return [
        frame.rotated(procrustes(_cross(moments, (layers[-1], last), (layer, frame))))
        for layer, frame in zip(layers[:-1], frames[:-1], strict=True)
    ] + [last]


def truncation_rank(variances: Tensor, rank: int | float, rows: float) -> int:
    """Number of leading directions to keep.

    Args:
        variances: eigenvalues of a covariance, descending.
        rank: -1, 0, a fraction or a number; see :class:`CoordinateOptions`.
        rows: how many rows the covariance is of, or the sum of their weights.
    """
    varying = max(1, int((variances > NULL * variances[0]).sum()))
    if rank == -1:
        return varying
    if rank == 0:
        beta = min(len(variances), rows) / max(len(variances), rows)
        singular = variances.clamp(min=0).sqrt()[: max(1, int(min(len(variances), rows)))]
        # Gavish & Donoho (2014), equation 5: the optimal threshold when the noise is unknown.
        omega = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43
        return min(varying, max(1, int((singular > omega * singular.quantile(0.5)).sum())))
    if rank < 1:
        energy = variances.clamp(min=0).cumsum(0) / variances.clamp(min=0).sum()
        return min(varying, int((energy < rank).sum()) + 1)
    return min(varying, int(rank))


def procrustes(cross: Tensor) -> Tensor:
    """The rotation R that minimises E|R a - b|², from ``cross`` = E[b aᵀ]."""
    U, _, Vh = torch.linalg.svd(cross)
    return torch.matmul(U, Vh)


def _knows(moments: Moments | FewRows, layer: str) -> bool:
    return isinstance(moments, FewRows) or (layer, layer) in moments.pairs


def _axes(moments: Moments | FewRows, layer: str, options: CoordinateOptions) -> Axes:
    massive, most = options.massive, options.most
    if isinstance(moments, FewRows):
        return Axes.of_factor(moments.factor(layer), layer, massive, most)
    return Axes.of_covariance(moments.cov(layer, layer), layer, massive, most)


def _cross(
    moments: Moments | FewRows, one: tuple[str, Coordinates], other: tuple[str, Coordinates]
) -> Tensor:
    """The covariance of two layers' coordinates."""
    (a, onto), (b, frame) = one, other
    if isinstance(moments, FewRows):
        ours, theirs = onto.weight @ moments.factor(a), frame.weight @ moments.factor(b)
        return ours @ theirs.T
    return onto.weight @ moments.cov(a, b) @ frame.weight.T


def _pooled(
    moments: Moments | FewRows, layers: Sequence[str], options: CoordinateOptions
) -> tuple[Tensor, Axes]:
    """Mean and principal axes of the rows of all layers together."""
    means = torch.stack([moments.mean(layer) for layer in layers])
    mean, massive, most = means.mean(0), options.massive, options.most
    if isinstance(moments, FewRows):
        parts = [moments.factor(layer) for layer in layers]
        for layer, part in zip(layers, parts, strict=True):
            Axes.require_motion(part.square().sum(1), layer)
        factor = torch.cat([*parts, (means - mean).T], 1).div_(len(layers) ** 0.5)
        return mean, Axes.of_factor(factor, layers[0], massive, most)
    covs = (_moving(moments.cov(layer, layer), layer) for layer in layers)
    within = reduce(Tensor.add_, covs)  # in place
    apart = means - mean
    cov = within.addmm_(apart.T, apart).div_(len(layers))
    return mean, Axes.of_covariance(cov, layers[0], massive, most)


def _moving(cov: Tensor, layer: str) -> Tensor:
    """The covariance, if it says that the layer varies and is known."""
    Axes.require_motion(cov.diagonal(), layer)
    return cov
