"""Affine coordinates of a layer, from moments alone: centre, project, whiten, scale, align.

As in arXiv 2505.12809, §3.3. Each step is affine, so the chain is one matrix and one vector with an
exact right inverse, and it folds into the maps before and after it (see ``folding.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping


Frames = Literal["auto", "shared", "aligned"]
"""Coordinates of the layers: one frame for all, a frame of its own for each, or what widths allow.

``"shared"``: one center, rotation and scale from the pooled moments. Both sides of K are then the
same coordinates, so its eigenvalues are those of the map between the layers themselves.
``"aligned"``: each layer's own, rotated onto the last; a convention, on which eigenvalues depend.
``"auto"``: shared where all layers have one width, otherwise aligned.
"""


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

    def clone(self) -> Coordinates:
        """A copy, with memory of its own."""
        parts = self.weight, self.mean, self.inverse_weight, self.offset
        return Coordinates(*(part.clone() for part in parts))

    def rotated(self, rotation: Tensor) -> Coordinates:
        """The same coordinates followed by an orthogonal ``rotation``."""
        return Coordinates(
            rotation @ self.weight, self.mean, self.inverse_weight @ rotation.T, self.offset
        )

    def then(self, inner: Coordinates) -> Coordinates:
        """The same coordinates followed by coordinates of them."""
        return Coordinates(
            inner.weight @ self.weight,
            self.inverse(inner.mean),
            self.inverse_weight @ inner.inverse_weight,
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

    @property
    def most(self) -> int | None:
        """Directions that are kept at most; None where their variances decide it."""
        return int(self.rank) if self.rank >= 1 else None

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
