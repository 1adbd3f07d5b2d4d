"""Two principal axes of each layer's states, each plane turned to the layer before.

Principal axes of two layers are not each other's: signs are arbitrary and near variances swap. So
each plane is turned, and reflected where that fits better, to bring the same samples as near as
possible to where they were in the layer before (orthogonal Procrustes: Schönemann 1966, "A
generalized solution of the orthogonal Procrustes problem").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.koopman.principal import procrustes

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Plane:
    """A plane in a layer's space of states."""

    center: Tensor
    """Mean of the states, float64, ``(features,)``."""
    axes: Tensor
    """Orthonormal columns, ``(features, 2)``; where states vary in one direction alone both columns
    lie along it, and where in none they are zero."""

    def coordinates(self, states: Tensor) -> Tensor:
        """Where states are, ``(rows, 2)``."""
        placed: Tensor = (states.double().cpu() - self.center) @ self.axes
        return placed

    def shares(self, states: Tensor) -> Tensor:
        """The share of the variance of states along each axis, ``(2,)``; NaN where none vary."""
        centred = states.double().cpu() - states.double().cpu().mean(0)
        return (centred @ self.axes).square().sum(0) / centred.square().sum()


def planes_of(layers: Iterable[Tensor]) -> list[Plane]:
    """A plane for each layer's states, ``(rows, features)`` each, the same rows in all."""
    found: list[Plane] = []
    before: Tensor | None = None
    for states in layers:
        plane = _principal(states.double().cpu())
        placed = plane.coordinates(states)
        if before is not None:
            turn = procrustes(before.T @ placed).T
            plane = Plane(plane.center, plane.axes @ turn)
            placed = placed @ turn
        found.append(plane)
        before = placed
    return found


def _principal(states: Tensor) -> Plane:
    center = states.mean(0)
    _, S, Vh = torch.linalg.svd(states - center, full_matrices=False)
    axes = torch.zeros(len(center), 2, dtype=torch.float64)
    for k in range(min(2, len(S))):
        if S[k] > 1e-12 * S[0]:
            axes[:, k] = Vh[k]
    return Plane(center, axes)
