"""A network whose Koopman eigenvalues are known: what a fit must find and what it must not trust.

Each layer maps (u, v) to (R u, b v + q(u)), R linear and q quadratic. The span of 1, u, v and the
products of two u's is closed under it, with eigenvalues 1, those of R, b, and products of two of
R's. Degree-2 products with v are not: they beget cubes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.observe.trajectory import Trajectory

if TYPE_CHECKING:
    from torchkoopman.koopman.feature_maps import Part

DEPTH = 4
RADIUS, ANGLE, SLAVED = 0.9, 0.4, 0.5
COS, SIN = RADIUS * math.cos(ANGLE), RADIUS * math.sin(ANGLE)
SYSTEMS = {
    "decay": torch.tensor([[RADIUS]], dtype=torch.float64),
    "rotation": torch.tensor([[COS, -SIN], [SIN, COS]], dtype=torch.float64),
}


class Layer(nn.Module):
    """(u, v) ↦ (R u, b v + |u|² + 0.3 u₁²), and after these ``noise`` coordinates drawn anew."""

    def __init__(self, linear: Tensor, noise: int, seed: int) -> None:
        super().__init__()
        self.linear = linear
        self.noise = noise
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, state: Tensor) -> Tensor:
        size = len(self.linear)
        u, v = state[:, :size], state[:, size : size + 1]
        pull = u.square().sum(1, keepdim=True) + 0.3 * u[:, :1].square()
        fresh = torch.randn(len(state), self.noise, generator=self.generator, dtype=state.dtype)
        return torch.cat([u @ self.linear.T, SLAVED * v + pull, fresh], 1)


def states(rows: int, size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, size, generator=generator, dtype=torch.float64) * 2 - 1


def known(linear: Tensor) -> list[complex]:
    """The eigenvalues per layer of 1, u, v and the products of two u's."""
    own = torch.linalg.eigvals(linear).tolist()
    products = [own[i] * own[j] for i in range(len(own)) for j in range(i, len(own))]
    return [1, *own, SLAVED, *products]


def fitted(linear: Tensor, *parts: Part, noise: int = 0) -> tk.Surrogate:
    """Streamed EDMD of one step for all layers, all in one frame so that λ are the layer's own."""
    size = len(linear) + 1 + noise
    layers = [Layer(linear, noise, seed) for seed in range(DEPTH)]
    network = nn.Sequential(nn.Identity(), *layers).double()
    names = [str(depth) for depth in range(DEPTH + 1)]
    sample = states(500, size, seed=1)[:, None]
    fitter = tk.EDMDFitter(parts, dynamics="step", ridge=1e-12)
    fitter.calibrate(Trajectory(dict.fromkeys(names, sample)))
    with tk.attach(network, names) as probe:
        probe.stream_to(fitter)
        for batch in torch.split(states(4000, size), 1000):
            network(batch)
    return fitter.surrogate
