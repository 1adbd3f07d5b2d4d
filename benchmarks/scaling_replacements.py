"""What replaces a scaled layer: ours, an affine map, random features, and the published matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import torchkoopman as tk

if TYPE_CHECKING:
    from torchkoopman.datasets import Labelled

START, LAYER = "0", "1"
"""The layer before the one to replace, and that one."""

PUBLISHED_STEPS = 10
"""Steps in the paper."""


def delay_dmd(scaling: tk.results.Scaling, data: Labelled, model: nn.Module) -> nn.Module:
    """All states but the last as one stack, led on to the layer's output in closed form."""
    fitter = tk.DMDFitter(delays=len(scaling.states) - 2)
    loader = data.loader(1000, seed=0)
    tk.fit(scaling.model, loader, scaling.states, method=fitter, progress=False)
    return scaling.replacement(fitter.surrogate)


def affine(scaling: tk.results.Scaling, data: Labelled, model: nn.Module) -> nn.Module:
    """From the layer's input alone: the ridge map."""
    loader, ends = data.loader(1000, seed=0), (scaling.states[0], scaling.states[-1])
    return scaling.replacement(tk.fit(scaling.model, loader, ends, method="dmd", progress=False))


def random_features(scaling: tk.results.Scaling, data: Labelled, model: nn.Module) -> nn.Module:
    """EDMD between the outputs of the two layers, without a path."""
    loader = data.loader(1000, seed=0)
    return tk.fit(model, loader, [START, LAYER], method="edmd", progress=False).replacement()


@torch.no_grad()
def as_published(scaling: tk.results.Scaling, data: Labelled, model: nn.Module) -> nn.Module:
    """The fit of the authors' notebook: 50 paths, ten delays, rank 40.

    The paths are laid end to end as one series before delays are taken, so that five of six stacks
    hold states of two samples; narrower states are padded with -0.5.
    """
    scaled, layer = scaling.scaled, model.get_submodule(START)
    states = scaled.path(layer(data.inputs[:50]))
    states.append(scaled.end(states[-1]))
    width = states[0].shape[1]
    padded = [nn.functional.pad(each, (0, width - each.shape[1]), value=-0.5) for each in states]
    series = torch.stack(padded, 1).flatten(0, 1).double()
    lags = range(PUBLISHED_STEPS + 1)
    stacks = torch.cat([series[PUBLISHED_STEPS - lag : len(series) - lag] for lag in lags], 1)
    U, S, Vh = torch.linalg.svd(stacks[:-1].T, full_matrices=False)
    U, S, Vh = U[:, :40], S[:40], Vh[:40]
    matrix = U @ (U.T @ stacks[1:].T @ Vh.T / S) @ U.T
    return Published(scaled.steps, matrix[: states[-1].shape[1]].float())


class Published(nn.Module):
    """The path, its stack, latest state first, and the published matrix."""

    matrix: Tensor

    def __init__(self, steps: nn.ModuleList, matrix: Tensor) -> None:
        super().__init__()
        self.steps = steps
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor) -> Tensor:
        states = [x]
        for step in self.steps:
            states.append(step(states[-1]))
        return torch.cat(states[::-1], -1) @ self.matrix.T


@torch.no_grad()
def explained(model: nn.Sequential, module: nn.Module, inputs: Tensor) -> float:
    """Share of the variance of the layer's output that a replacement gives, R²."""
    x = model[0](inputs)
    y = model[1](x)
    left: float = ((module(x) - y).square().sum() / (y - y.mean(0)).square().sum()).item()
    return 1 - left
