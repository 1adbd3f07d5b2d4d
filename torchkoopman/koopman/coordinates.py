"""Affine coordinates of a layer, from moments alone: centre, project, whiten, scale, align.

S1 (arXiv 2505.12809) §3.3. Each step is affine, so the chain is one matrix and one vector with an
exact right inverse, and it folds into the maps before and after it (see ``folding.py``).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.observe.moments import Moments

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
        self.register_buffer("weight", weight)
        self.register_buffer("mean", mean)
        self.register_buffer("inverse_weight", inverse_weight)
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
    the same number: the largest that one of them asks for, as far as each has it."""
    whitening: float = 1.0
    """α of D = α + (1-α) Λ^(-1/2), Λ relative to its mean: 1 keeps the variances as they are,
    0 makes them equal."""
    align: bool = True
    """Rotate each layer onto the last by orthogonal Procrustes, so that the operator starts near
    the identity. Not with ``shared``."""
    shared: bool = False
    """One frame for all layers, from their pooled moments: what keeps a rotation between layers a
    rotation of the operator. Needs layers of one width."""

    def __post_init__(self) -> None:
        if not 0 <= self.whitening <= 1:
            raise ValueError(f"whitening={self.whitening} must lie between 0 (full) and 1 (none).")
        if not (self.rank in (-1, 0) or 0 < self.rank < 1 or self.rank % 1 == 0 < self.rank):
            raise ValueError(
                f"rank={self.rank} must be -1 (all), 0 (Gavish–Donoho), a share of the variance "
                "between 0 and 1, or a number of directions."
            )


def layer_coordinates(
    moments: Moments, layers: Sequence[str], options: CoordinateOptions
) -> list[Coordinates]:
    """Coordinates of each layer, all of one size.

    Args:
        moments: of the layers; aligning needs the covariance of each layer with the last.
        layers: names of the variables, first layer first.
        options: the steps.

    Raises:
        ValueError: a layer that is constant, or ``shared`` with layers of different widths.
    """
    if options.shared:
        mean, cov = _pooled(moments, layers)
        spectrum = _eigh(cov, layers[0])
        size = truncation_rank(spectrum[0], options.rank, moments.count)
        shared = _principal(mean, spectrum, size, options.whitening)
        return [copy.deepcopy(shared) for _ in layers]
    spectra = {layer: _eigh(moments.cov(layer, layer), layer) for layer in layers}
    wanted = max(truncation_rank(s, options.rank, moments.count) for s, _ in spectra.values())
    size = min(wanted, *(truncation_rank(s, -1, moments.count) for s, _ in spectra.values()))
    frames = [
        _principal(moments.mean(layer), spectra[layer], size, options.whitening) for layer in layers
    ]
    if not options.align:
        return frames
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
    widths = {layer: moments.features(layer) for layer in layers}
    if len(set(widths.values())) > 1:
        raise ValueError(
            f"layers share coordinates only if they have one width; they have {widths}. "
            "Give shared=False, or choose layers of one width."
        )
    means = torch.stack([moments.mean(layer) for layer in layers])
    within = torch.stack([moments.cov(layer, layer) for layer in layers]).mean(0)
    return means.mean(0), within + means.T.cov(correction=0).reshape(within.shape)


def _eigh(cov: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Eigenvalues, descending, and eigenvectors of a covariance."""
    values, vectors = torch.linalg.eigh(cov)
    if not math.isfinite(values[-1].item()) or values[-1] <= 0:
        raise ValueError(
            f"layer {layer!r} is constant over the {cov.shape[0]} features of all rows seen; there "
            "is no state to follow. Choose another layer, or stream more than one sample."
        )
    return values.flip(0), vectors.flip(1)


def _principal(
    mean: Tensor, spectrum: tuple[Tensor, Tensor], size: int, whitening: float
) -> Coordinates:
    """Centred, projected, whitened and scaled coordinates; their mean square over features is 1.

    S1 divides by the Frobenius norm of the whole data matrix, which depends on the number of
    samples; the root mean square does not.
    """
    variances, axes = spectrum[0][:size], spectrum[1][:, :size]
    spread = whitening + (1 - whitening) * (variances / variances.mean()).rsqrt()
    spread = spread / (spread.square() * variances).mean().sqrt()
    return Coordinates((axes * spread).T, mean, axes / spread)
