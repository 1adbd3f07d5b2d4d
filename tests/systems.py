"""What tests of many rooms draw and build: numbers of a seed, rotations, exact solutions."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs


def seeded(seed: int = 0) -> Generator:
    """A generator of its own, so that the global random state stays as it is."""
    return Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers, in double precision, as laws are tested."""
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in single precision, as networks compute."""
    return draw(*shape, seed=seed, dtype=torch.float32)


def rows(seed: int = 0) -> Tensor:
    """Three rows of four numbers, a batch of the networks that surgery is tested on."""
    return normal(3, 4, seed=seed)


def turn(angle: float) -> Tensor:
    """The rotation of the plane by an angle; its eigenvalues are ``exp(±i angle)``."""
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)


def pair(start: Tensor, end: Tensor) -> Moments:
    """Moments of rows and of what became of them, as of two layers ``start`` and ``end``."""
    moments = Moments(layer_pairs(("start", "end"), "ends"))
    return moments.update({"start": start, "end": end})


def least_squares(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix and offset of the affine map with the least squares, by LAPACK."""
    one = torch.ones(len(start), 1, dtype=start.dtype)
    solution = torch.linalg.lstsq(torch.cat([start, one], 1), end, driver="gelsd").solution
    return solution[:-1].T, solution[-1]
