"""A small nonlinear system, and autoencoders small enough to learn it within a test."""

from typing import Any

import torch
from torch import Tensor

import torchkoopman as tk
from tests.systems import normal
from torchkoopman.fitting.autoencoder import Family
from torchkoopman.fitting.quality import Unexplained
from torchkoopman.observe.trajectory import Trajectory
from torchkoopman.running.baselines import Baselines

FAMILIES: list[Family] = ["Dense", "LowRank", "Orthogonal", "Stable", "BlockDiagonal"]


def polar(rows: int, layers: int = 3, seed: int = 0) -> list[Tensor]:
    """(a, b) ↦ (0.9 a, 0.6 b + 0.8 a²): nonlinear, but linear in (a, b, a²)."""
    a, b = normal(rows, seed=seed), normal(rows, seed=seed + 1000)
    states = [torch.stack([a, b], 1)]
    for _ in range(layers - 1):
        a, b = 0.9 * a, 0.6 * b + 0.8 * a.square()
        states.append(torch.stack([a, b], 1))
    return states


def small(**options: Any) -> tk.AutoencoderFitter:
    defaults: dict[str, Any] = {
        "latent": 8,
        "hidden": (24,),
        "calibration": 200,
        "steps_per_update": 4,
        "batch": 64,
    }
    return tk.AutoencoderFitter(**{**defaults, **options})


def stream(
    fitter: tk.AutoencoderFitter, states: list[Tensor], size: int = 100, labelled: bool = False
) -> tk.AutoencoderFitter:
    for parts in zip(*(state.split(size) for state in states), strict=True):
        labels = torch.arange(len(parts[0])) % 3 if labelled else None
        fitter.update(Trajectory.of(*parts, labels=labels))
    return fitter


def r2(surrogate: tk.Surrogate, states: list[Tensor]) -> float:
    return Unexplained().update(surrogate(states[0][:, None])[:, 0], states[-1]).r2


def ridge_r2(seen: list[Tensor], fresh: list[Tensor]) -> float:
    weight, bias = Baselines().update(Trajectory.of(*seen)).maps(2)["ridge map"]
    return Unexplained().update(fresh[0].double() @ weight.T + bias, fresh[-1]).r2
