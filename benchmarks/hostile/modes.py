"""Hostile: training mode, and changes of mode after the swap."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Inputs, Six, case

TRAIN = "training mode"
TOGGLE = "mode changes after the swap"


class DropoutBefore(Six):
    """Dropout before the span."""

    def build(self) -> None:
        self.drop = nn.Dropout(0.0 if self.harmless else 0.5)

    def before(self, h: Tensor) -> Tensor:
        return self.drop(h)


class DropoutBehind(DropoutBefore):
    """Dropout behind the span."""

    before, behind = Six.before, DropoutBefore.before


class FunctionalDropout(Six):
    """Dropout as a function of the model's mode."""

    def behind(self, h: Tensor) -> Tensor:
        return nn.functional.dropout(h, 0.0 if self.harmless else 0.5, self.training)


class DropoutInsideAndBehind(Six):
    """Dropout in the span and behind it: the second draws what the first has left."""

    def build(self) -> None:
        self.drop = nn.Dropout(0.0 if self.harmless else 0.5)

    def inside(self, h: Tensor) -> Tensor:
        return self.drop(h)

    def behind(self, h: Tensor) -> Tensor:
        return h if self.harmless else self.drop(h)


class StochasticDepth(Six):
    """A layer is left out by chance while training."""

    def behind(self, h: Tensor) -> Tensor:
        if self.training and not self.harmless and random.random() < 0.5:
            return h
        return self.b[0](h)


class WeightNoise(Six):
    """Noise of fixed shape while training."""

    def before(self, h: Tensor) -> Tensor:
        return h + torch.randn(WIDTH) if self.training and not self.harmless else h


class TrainBranch(Six):
    """Another layer while training."""

    def behind(self, h: Tensor) -> Tensor:
        return self.b[0](h) if self.training and not self.harmless else h


class TrainBranchBefore(Six):
    """The same before the span."""

    def before(self, h: Tensor) -> Tensor:
        return self.b[4](h) if self.training and not self.harmless else h


class TrainBranchInside(Six):
    """An inner value escapes while training, as in an auxiliary loss."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        inner = self.b[2](h)
        y = self.b[5](self.b[4](self.b[3](inner)))
        return y + inner if self.training and not self.harmless else y


class TrainHook(Six):
    """A hook on the model acts while training only."""

    def build(self) -> None:
        self.register_forward_pre_hook(
            lambda module, given: (
                (given[0] * 2,) if module.training and not module.harmless else None
            )
        )


class TrainOutput(Six):
    """A tuple while training, a tensor otherwise."""

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return (y, y.mean()) if self.training and not self.harmless else y


class BatchNormBefore(Six):
    """A batch norm before the span, whose statistics move while training."""

    def build(self) -> None:
        self.b[0] = nn.BatchNorm1d(WIDTH, track_running_stats=not self.harmless)


class BatchNormFunction(Six):
    """The same as a function with the model's buffers."""

    def build(self) -> None:
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("variance", torch.ones(WIDTH))

    def behind(self, h: Tensor) -> Tensor:
        training = self.training and not self.harmless
        return nn.functional.batch_norm(h, self.mean, self.variance, training=training)


class PartlyFrozen(Six):
    """One layer stays in eval mode, by an override of ``train``."""

    def build(self) -> None:
        self.drop, self.still = nn.Dropout(0.5), nn.Dropout(0.0 if self.harmless else 0.5)

    def train(self, mode: bool = True) -> PartlyFrozen:
        super().train(mode)
        self.drop.eval()
        return self

    def before(self, h: Tensor) -> Tensor:
        return self.still(self.drop(h))


class NormBetween(Six):
    """A batch norm in the span, dropped with it, and one behind."""

    def build(self) -> None:
        self.b[2] = nn.BatchNorm1d(WIDTH)
        self.b[4] = nn.BatchNorm1d(WIDTH, track_running_stats=not self.harmless)


class RandomLeaky(Six):
    """A random slope while training."""

    def build(self) -> None:
        self.b[4] = nn.RReLU(*((0.2, 0.2) if self.harmless else (0.1, 0.9)))


def toggled(model: nn.Module, inputs: Inputs) -> Any:
    """One call in training mode, one in eval mode."""
    model.train()
    first = model(*inputs)
    model.eval()
    return first, model(*inputs)


def part_toggled(model: nn.Module, inputs: Inputs) -> Any:
    """The container of the layers alone is put into training mode."""
    model.get_submodule("b").train()
    first = model(*inputs)
    model.get_submodule("b").eval()
    return first, model(*inputs)


class DropoutLayers(Six):
    """Dropout within the layers before and behind the span."""

    def build(self) -> None:
        for index in (0, 4):
            self.b[index] = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.5))


ALWAYS = (
    DropoutBefore,
    DropoutBehind,
    FunctionalDropout,
    DropoutInsideAndBehind,
    StochasticDepth,
    WeightNoise,
    TrainBranch,
    TrainBranchBefore,
    TrainBranchInside,
    TrainHook,
    BatchNormBefore,
    BatchNormFunction,
    NormBetween,
    PartlyFrozen,
    RandomLeaky,
)
LATER = (
    FunctionalDropout,
    StochasticDepth,
    TrainBranch,
    TrainBranchBefore,
    TrainBranchInside,
    TrainHook,
    TrainOutput,
    BatchNormFunction,
)
CASES = [case(TRAIN, kind, train=True) for kind in ALWAYS]
for kind in LATER:
    one = case(TOGGLE, kind, drive=toggled)
    CASES.append(replace(one, name=f"{one.name} toggled"))
CASES.append(case(TOGGLE, DropoutLayers, twin=False, drive=part_toggled))
