"""The residual perceptron of arXiv 2505.12809, and its training: what the demo looks into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torchkoopman.datasets import Labelled


class Block(nn.Module):
    """``ReLU(x + BN(W₂ ReLU(BN(W₁ x))))``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU())
        self.second = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


class ResidualMLP(nn.Module):
    """Linear + BN + ReLU, ``depth`` residual blocks, linear head."""

    def __init__(self, inputs: int, width: int, depth: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU())
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(self.stem(x)))
        return logits


def train(
    model: nn.Module,
    data: Labelled,
    *,
    epochs: int,
    batch: int,
    rate: float,
    momentum: float = 0.9,
    decay: float = 5e-4,
    seed: int = 0,
) -> nn.Module:
    """SGD as in the paper, with a one-cycle learning rate."""
    loader = data.loader(batch, seed=seed)
    optimiser = torch.optim.SGD(
        model.parameters(), lr=rate, momentum=momentum, weight_decay=decay, foreach=True
    )
    steps = epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=steps, cycle_momentum=False
    )
    model.train()
    for _ in range(epochs):
        for x, y in loader:
            optimiser.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, data: Labelled) -> float:
    """Share of samples whose largest logit is their class."""
    right = model(data.inputs).argmax(1) == data.labels
    return float(right.double().mean())


@torch.no_grad()
def class_accuracies(model: nn.Module, data: Labelled) -> list[float]:
    """The same class by class."""
    right = model(data.inputs).argmax(1) == data.labels
    return [right[data.labels == c].double().mean().item() for c in torch.unique(data.labels)]
