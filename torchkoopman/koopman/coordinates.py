"""Affine coordinates of a layer, from moments alone: centre, project, whiten, scale, align.

As in arXiv 2505.12809, §3.3. Each step is affine, so the chain is one matrix and one vector with an
exact right inverse, and it folds into the maps before and after it (see ``folding.py``).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchkoopman.observe.moments import Moments

Frames = Literal["auto", "shared", "aligned"]
"""Coordinates of the layers: one frame for all, a frame of its own for each, or what widths allow.

``"shared"``: one center, rotation and scale from the pooled moments. Both sides of K are then the
same coordinates, so its eigenvalues are those of the map between the layers themselves.
``"aligned"``: each layer's own, rotated onto the last; a convention, on which eigenvalues depend.
``"auto"``: shared where all layers have one width, otherwise aligned.
"""

_TINY = 1e-70
"""Variance below which the scale of coordinates, one over a deviation, nears float32's overflow."""
_NULL = 1e-12
"""Directions with less than this share of the largest variance count as constant."""


class Coordinates(nn.Module):
    """``c = weight @ (x - mean)``, from ``(…, features)`` to ``(…, coordinates)``, and back.

    The way back is ``x ≈ inverse_weight @ c + offset``: exact on what the projection kept. The
    offset is the mean, unless an edit moved what the layer is decoded to (see ``after``).
    """

    weight: Tensor
    mean: Tensor
    inverse_weight: Tensor
    offset: Tensor

    def __init__(
        self, weight: Tensor, mean: Tensor, inverse_weight: Tensor, offset: Tensor | None = None
    ) -> None:
        super().__init__()
        # In one memory layout, so that a copy from a file gives the same bits.
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("mean", mean)
        self.register_buffer("inverse_weight", inverse_weight.contiguous())
        self.register_buffer("offset", mean.clone() if offset is None else offset)

    @classmethod
    def zeros(cls, size: int, features: int) -> Coordinates:
        """Coordinates of this shape with values still to be loaded."""
        return cls(torch.zeros(size, features), torch.zeros(features), torch.zeros(features, size))

    @property
    def features(self) -> int:
        """Width of the layer."""
        return self.weight.shape[1]

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return self.weight.shape[0]

    @property
    def bias(self) -> Tensor:
        """``-weight @ mean``, so that ``c = weight @ x + bias``."""
        return -(self.weight @ self.mean)

    def forward(self, state: Tensor) -> Tensor:
        """Features to coordinates."""
        return (state - self.mean) @ self.weight.T

    def inverse(self, coordinates: Tensor) -> Tensor:
        """Coordinates to features."""
        return coordinates @ self.inverse_weight.T + self.offset

    def rotated(self, rotation: Tensor) -> Coordinates:
        """The same coordinates followed by an orthogonal ``rotation``."""
        return Coordinates(
            rotation @ self.weight, self.mean, self.inverse_weight @ rotation.T, self.offset
        )

    def after(self, weight: Tensor, bias: Tensor) -> Coordinates:
        """Coordinates whose way back is followed by ``x ↦ weight @ x + bias``."""
        return Coordinates(
            self.weight, self.mean, weight @ self.inverse_weight, weight @ self.offset + bias
        )


@dataclass(frozen=True)
class CoordinateOptions:
    """How the coordinates of the layers are made from their moments."""

    rank: int | float = -1
    """Directions kept, as PyDMD users know it: -1 all that vary, 0 Gavish–Donoho's threshold, a
    fraction between 0 and 1 that share of the variance, a larger integer so many. All layers get
    the same number: the largest that any layer requests, capped at the smallest number of
    directions that vary in every layer."""
    whitening: float = 1.0
    """α of D = α + (1-α) Λ^(-1/2), Λ relative to its mean: 1 keeps the variances as they are,
    0 makes them equal."""
    frames: Frames = "auto"
    """One frame for all layers or one for each; see ``Frames``."""
    massive: float = 1000.0
    """A feature that deviates more than so many times the median one is scaled down to that. Some
    features of language models are 10⁵ times larger than the others, which they would drown in a
    relative ridge, in float32, and at more than 10 in random features of the state."""

    def __post_init__(self) -> None:
        check_frames(self.frames)
        if not 0 <= self.whitening <= 1:
            raise ValueError(f"whitening={self.whitening} must lie between 0 (full) and 1 (none).")
        if not (self.rank in (-1, 0) or 0 < self.rank < 1 or self.rank % 1 == 0 < self.rank):
            raise ValueError(
                f"rank={self.rank} must be -1 (all), 0 (Gavish–Donoho), a share of the variance "
                "between 0 and 1, or a number of directions."
            )


def check_frames(frames: str) -> None:
    """Refuse an unknown kind of frames.

    Raises:
        ValueError: names the kinds there are.
    """
    if frames not in ("auto", "shared", "aligned"):
        raise ValueError(
            f"frames={frames!r} is unknown; choose 'auto', 'shared' (one frame for all layers) or "
            "'aligned' (a frame for each, rotated onto the last)."
        )


def resolve_frames(frames: Frames, widths: Mapping[str, int]) -> Literal["shared", "aligned"]:
    """What ``frames`` means for layers of these widths.

    Raises:
        ValueError: ``"shared"`` with layers of different widths.
    """
    check_frames(frames)
    one = len(set(widths.values())) == 1
    if frames == "shared" and not one:
        raise ValueError(
            f"layers share coordinates only if they have one width; they have {dict(widths)}. "
            "Take frames='aligned' or 'auto', or choose layers of one width."
        )
    return "aligned" if frames == "aligned" or not one else "shared"


def layer_coordinates(
    moments: Moments, layers: Sequence[str], options: CoordinateOptions
) -> list[Coordinates]:
    """Coordinates of each layer, all of one size.

    Args:
        moments: of the layers; aligning needs the covariance of each layer with the last.
        layers: names of the variables, first layer first.
        options: the steps.

    Raises:
        ValueError: a layer that is constant, or shared frames of layers of different widths.
    """
    widths = {layer: moments.features(layer) for layer in layers}
    if resolve_frames(options.frames, widths) == "shared":
        for layer in layers:
            _require_motion(moments.cov(layer, layer), layer)
        mean, cov = _pooled(moments, layers)
        axes = _axes(cov, layers[0], options.massive)
        size = truncation_rank(axes.variances, options.rank, moments.count)
        shared = _principal(mean, axes, size, options.whitening)
        return [copy.deepcopy(shared) for _ in layers]
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
    within = reduce(Tensor.add_, (moments.cov(layer, layer) for layer in layers))  # in place
    return means.mean(0), within.div_(len(layers)).add_(means.T.cov(correction=0))


def _require_motion(cov: Tensor, layer: str) -> None:
    """Refuse a layer whose covariance says that it does not vary, or that nothing is known."""
    if not cov.isfinite().all():
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
    _require_motion(cov, layer)
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
