"""Observables ψ: functions of a layer's coordinates in which its dynamics is closer to linear.

A :class:`Dictionary` stacks the constant, the coordinates themselves and any further parts, as in
EDMD (Williams, Kevrekidis & Rowley 2015); these parts are in ``feature_maps.py``, the learnt
encoder and decoder in ``learnt.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from torchkoopman.koopman.feature_maps import PARTS, Part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.koopman.feature_maps import Affine


@runtime_checkable
class Observables(Protocol):
    """What a surrogate needs of its observables; both kinds are ``nn.Module``s."""

    features: int
    latent: int
    constant: bool
    """The first latent coordinate is 1 for every state."""

    @property
    def contextual(self) -> bool:
        """Whether a position's latent state depends on other positions."""
        ...

    def encode(self, coordinates: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, positions, features)`` → ``(batch, positions, latent)``."""
        ...

    def decode(self, latent: Tensor) -> Tensor:
        """``(…, latent)`` → ``(…, features)``."""
        ...

    def config(self) -> dict[str, Any]:
        """JSON-able structure."""
        ...


class Dictionary(nn.Module):
    """``ψ(c) = [1, c, parts(c) …]``; the state is read off as the second entry.

    Without parts these are the observables of (affine) DMD.
    """

    def __init__(self, parts: Sequence[Part] = ()) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.constant = True
        self.features = self.latent = 0

    def build(self, features: int, generator: torch.Generator | None = None) -> Self:
        """Fix the number of coordinates and draw what is random."""
        for part in self._parts():
            part.build(features, generator)
        return self._sized(features)

    @property
    def contextual(self) -> bool:
        """Whether a position's functions depend on other positions."""
        return any(part.contextual for part in self._parts())

    def encode(self, coordinates: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, positions, features)`` → ``(batch, positions, latent)``."""
        one = torch.ones_like(coordinates[..., :1])
        return torch.cat([one, coordinates, *(part(coordinates, mask) for part in self.parts)], -1)

    def decode(self, latent: Tensor) -> Tensor:
        """The coordinates, read off the latent state."""
        return latent[..., 1 : 1 + self.features]

    def decoding_matrix(self) -> Tensor:
        """The matrix of :meth:`decode`, shape ``(features, latent)``."""
        return torch.eye(self.latent)[1 : 1 + self.features]

    def folded(self, inner: Affine) -> tuple[Dictionary, Tensor]:
        """The dictionary ψ' of ``x`` and the matrix T with ``ψ(weight @ x + bias) = T ψ'(x)``."""
        weight, bias = (value.double() for value in inner)
        outer = Dictionary([part.folded(inner) for part in self._parts()])._sized(weight.shape[1])
        transfer = weight.new_zeros(self.latent, outer.latent)
        transfer[0, 0] = 1
        row, column = 1, 1
        for part in (None, *self._parts()):
            linear = part is None or part.affine_in_state
            width = self.features if part is None else part.width(self.features)
            for copy in range(width // self.features if linear else 0):
                rows = slice(row + copy * self.features, row + (copy + 1) * self.features)
                start = column + copy * outer.features
                transfer[rows, start : start + outer.features] = weight
                transfer[rows, 0] = bias
            if not linear:
                transfer[row : row + width, column : column + width] = torch.eye(width)
            row += width
            column += outer.features if part is None else part.width(outer.features)
        return outer, transfer

    def config(self) -> dict[str, Any]:
        """The parts and the number of coordinates."""
        parts = [{"kind": type(part).__name__, **part.config()} for part in self._parts()]
        return {"kind": "dictionary", "features": self.features, "parts": parts}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Dictionary:
        """A dictionary of the structure of ``config``; random parts hold arbitrary values."""
        parts = [dict(part) for part in config["parts"]]
        built = [PARTS[part.pop("kind")](**part) for part in parts]
        return cls(built).build(config["features"], torch.Generator().manual_seed(0))

    def _parts(self) -> list[Part]:
        return [part for part in self.parts if isinstance(part, Part)]

    def _sized(self, features: int) -> Self:
        self.features = features
        self.latent = 1 + features + sum(part.width(features) for part in self._parts())
        return self
