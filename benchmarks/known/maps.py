"""Random maps of a line: drawn as they are defined, eigenvalues from their transition density."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Diffusion:
    """Euler–Maruyama steps x ↦ x + drift(x) · step + noise · √step · ξ; so many of them are a lag.

    The discrete chain is the system: its eigenvalues are computed for this very step size.
    """

    drift: Callable[[Tensor], Tensor]
    noise: float
    step: float
    lag: int
    reach: float
    """How far from 0 the chain gets at all, but for a probability below rounding."""
    nodes: int
    """Of the quadrature; a step's spread has to cover several of them."""

    def draw(
        self, start: Tensor, settling: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The states after ``settling`` steps from ``start``, and a lag later; shaped as it is."""
        x = self._after(settling, start, generator)
        return x, self._after(self.lag, x, generator)

    def eigenvalues(self) -> Tensor:
        """Of the Koopman operator of one lag; complex128, largest modulus first."""
        spread = self.noise * self.step**0.5

        def density(x: Tensor, y: Tensor) -> Tensor:
            gap = (y - x - self.drift(x) * self.step) / spread
            found: Tensor = (-0.5 * gap.square()).exp() / (spread * math.sqrt(2 * math.pi))
            return found

        step = transfer_eigenvalues(density, -self.reach, self.reach, self.nodes)
        return step**self.lag

    def _after(self, steps: int, state: Tensor, generator: torch.Generator) -> Tensor:
        spread = self.noise * self.step**0.5
        for _ in range(steps):
            xi = torch.randn(state.shape, generator=generator, dtype=state.dtype)
            state = state + self.drift(state) * self.step + spread * xi
        return state


@dataclass(frozen=True)
class NoisyLogisticMap:
    """x ↦ 4x(1-x) + u modulo 1, u of density ∝ cos(π u)^(2·order) between -½ and ½.

    Ostruszka et al. (2000); kooplearn's reference, whose own generator clips instead.
    """

    order: int = 10

    def draw(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pairs of the invariant law, shape ``(rows, 1)``."""
        x = torch.rand(rows, 1, generator=generator, dtype=torch.float64)
        # The second eigenvalue is below .3: after 30 steps nothing is left of the start.
        for _ in range(30):
            x = self._step(x, generator)
        return x, self._step(x, generator)

    def eigenvalues(self) -> Tensor:
        """All 2·order + 1 that are not 0, and rounding; complex128, largest modulus first."""
        mass = math.exp(
            math.lgamma(self.order + 0.5) - math.lgamma(self.order + 1) - 0.5 * math.log(math.pi)
        )

        def density(x: Tensor, y: Tensor) -> Tensor:
            return torch.cos(math.pi * (y - 4 * x * (1 - x))) ** (2 * self.order) / mass

        return transfer_eigenvalues(density, 0, 1, nodes=200)

    def _step(self, x: Tensor, generator: torch.Generator) -> Tensor:
        # sin(π u) is distributed as a coordinate of a random direction in 2·order + 2 dimensions.
        size = (len(x), 2 * self.order + 2)
        direction = torch.randn(size, generator=generator, dtype=x.dtype)
        sine = direction[:, :1] / direction.norm(dim=1, keepdim=True)
        following: Tensor = (4 * x * (1 - x) + sine.asin() / math.pi) % 1
        return following


def transfer_eigenvalues(
    density: Callable[[Tensor, Tensor], Tensor], low: float, high: float, nodes: int
) -> Tensor:
    """Eigenvalues of f ↦ ∫ density(x, y) f(y) dy, largest modulus first; complex128.

    Nyström's method at Gauss–Legendre nodes, spectrally accurate for smooth densities.
    """
    points, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(nodes))
    x = low + (points + 1) * (high - low) / 2
    # Similar to the kernel times the weights, and better balanced.
    roots = (weights * (high - low) / 2).sqrt()
    kernel = roots[:, None] * density(x[:, None], x) * roots
    values = torch.from_numpy(np.linalg.eigvals(kernel.numpy())).to(torch.complex128)
    return values[torch.argsort(values.abs(), descending=True, stable=True)]
