"""Principal axes of a layer, from its covariance, or from fewer rows than it has features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from scipy.linalg import eigh
from torch import Tensor

from torchkoopman.koopman.coordinates import Coordinates

NULL = 1e-12
"""Directions with less than this share of the largest variance count as constant."""
_MANY, _FEW = 512, 8
"""From so many features on, axes are found alone if they are no more than one in so many."""
_TINY = 1e-70
"""Variance below which the scale of coordinates, one over a deviation, nears float32's overflow."""


@dataclass(frozen=True)
class Axes:
    """Principal axes of features divided by ``scales``."""

    variances: Tensor
    """Descending, ``(features,)`` or as many as were asked for, where that is faster; 0 where there
    are fewer rows than features."""
    vectors: Tensor
    """Columns: the axes, ``(features, variances)``; of few rows those of their Gram matrix,
    ``(rows, rows)``."""
    scales: Tensor
    """1, and more for massive features, ``(features,)``."""
    factor: Tensor | None = None
    """Few rows, centred and scaled, ``(features, rows)``; the axes are ``factor @ vectors``, each
    divided by its length."""

    @classmethod
    def of_covariance(
        cls, cov: Tensor, layer: str, massive: float, most: int | None = None
    ) -> Self:
        """Of a covariance, which is overwritten; features are scaled down to ``massive``.

        No more than the ``most`` leading axes are needed; None: all.
        """
        scales = _scales(cov.diagonal(), layer, massive)
        if (scales > 1).any():
            cov.div_(scales[:, None]).div_(scales)
        values, vectors = _eigenpairs(cov, most)
        return cls(values.flip(0), vectors.flip(1), scales)

    @classmethod
    def of_factor(cls, factor: Tensor, layer: str, massive: float, most: int | None = None) -> Self:
        """Of the covariance ``factor @ factor.T``, from the smaller of the two Gram matrices."""
        features, rows = factor.shape
        if features <= rows:
            return cls.of_covariance(factor @ factor.T, layer, massive, most)
        scales = _scales(factor.square().sum(1), layer, massive)
        scaled = factor / scales[:, None]
        values, vectors = torch.linalg.eigh(scaled.T @ scaled)
        variances = torch.cat([values.flip(0), values.new_zeros(features - rows)])
        return cls(variances, vectors.flip(1), scales, scaled)

    @staticmethod
    def require_motion(variances: Tensor, layer: str) -> None:
        """Refuse a layer whose features' variances say that it does not vary, or nothing.

        Raises:
            ValueError: it does not, or they are not finite.
        """
        least, most = (each.item() for each in torch.aminmax(variances))
        if not math.isfinite(least + most):
            raise ValueError(
                f"layer {layer!r} has states so large that their covariance is not finite; leave "
                "such rows out with a mask, or choose another layer."
            )
        if 0 < most < _TINY:
            raise ValueError(
                f"layer {layer!r} varies by no more than {most**0.5:.1e}, below what "
                "coordinates of float32 can be scaled from; multiply its states by a constant "
                "first."
            )
        if not most > 0:
            raise ValueError(
                f"layer {layer!r} is constant over the {len(variances)} features of all rows seen; "
                "there is no state to follow. Choose another layer, or stream more than one sample."
            )

    def coordinates(self, mean: Tensor, size: int, whitening: float) -> Coordinates:
        """Centered, projected, whitened, scaled; their mean square over features is 1.

        The Koopman-autoencoder paper divides by the Frobenius norm of the whole data matrix, which
        depends on the number of samples; the root mean square does not.
        """
        variances, vectors = self.variances[:size], self._leading(size)
        spread = whitening + (1 - whitening) * (variances / variances.mean()).rsqrt()
        scales = self.scales[:, None] / (spread / (spread.square() * variances).mean().sqrt())
        return Coordinates((vectors / scales).T, mean, vectors * scales)

    def _leading(self, size: int) -> Tensor:
        """The first axes as columns, ``(features, size)``."""
        if self.factor is None:
            return self.vectors[:, :size]
        axes = self.factor @ (self.vectors[:, :size] / self.variances[:size].sqrt())
        # Of small variances they are orthogonal to 1e-4 only; a Newton step squares that.
        return axes @ (1.5 * torch.eye(size).to(axes) - 0.5 * axes.T @ axes)


def _eigenpairs(symmetric: Tensor, most: int | None) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues and their eigenvectors as columns: all, or the ``most`` largest.

    torch finds all or none. LAPACK's ``syevr`` finds a few of many in half of the time.
    """
    size = len(symmetric)
    if most is None or _FEW * most > size or size < _MANY or symmetric.device.type != "cpu":
        values, vectors = torch.linalg.eigh(symmetric)
        return values, vectors
    some = (size - most, size - 1)
    found = eigh(symmetric.numpy(), subset_by_index=some, driver="evr", check_finite=False)
    values, vectors = (torch.from_numpy(each) for each in found)
    return values, vectors


def _scales(variances: Tensor, layer: str, massive: float) -> Tensor:
    """What features are divided by, so that none deviates more than ``massive`` median ones."""
    Axes.require_motion(variances, layer)
    deviations = variances.clamp(min=0).sqrt()
    varying = deviations[deviations > NULL * deviations.max()]
    return (deviations / (massive * varying.median())).clamp(min=1)
