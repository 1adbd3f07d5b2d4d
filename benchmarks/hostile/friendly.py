"""Constructions that look hostile and are not: each must come out exact."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.hostile.attributes import LATER
from benchmarks.hostile.case import WIDTH, Six, case, layer

CAUSE = "friendly"


class WriteBehind(Six):
    """The span's output is written through a view behind it."""

    def behind(self, h: Tensor) -> Tensor:
        h.view(-1).mul_(2)
        return h


class ViewOfStart(Six):
    """A view of the state at the start is used behind the span."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        view = h.view(-1, 4)
        return self.b[5](self.span(h)) + view.reshape(-1, WIDTH)


class TrainNorm(Six):
    """Batch norms before, in and behind the span, in training mode."""

    def build(self) -> None:
        for index in (0, 2, 4):
            self.b[index] = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))


class NoiseInside(Six):
    """Noise in the span alone."""

    def inside(self, h: Tensor) -> Tensor:
        return h + torch.randn_like(h)


class TiedLayers(Six):
    """One layer runs before and behind the span."""

    def build(self) -> None:
        self.b[4] = self.b[0]


class TiedWeights(Six):
    """A weight in the span is also one behind it."""

    def build(self) -> None:
        self.b[4][0].weight = self.b[2][0].weight


class LayerHooks(Six):
    """Hooks on layers: before the span, on its ends, behind it."""

    def build(self) -> None:
        for index in (0, 1, 3, 4):
            self.b[index][0].register_forward_hook(lambda _, given, out: out * 1.5)
        self.b[0][0].register_forward_pre_hook(lambda _, given: (given[0] + 1,))
        self.b[1].register_forward_hook(lambda _, given, out: out * 2)
        self.b[3].register_forward_hook(lambda _, given, out: out * 2)


@dataclass
class Output:
    """What a layer gives, with its state."""

    h: Tensor
    name: str = "layer"


class InDataclass(Six):
    """The start and the end hand on their states in a dataclass."""

    class Layer(nn.Linear):
        """Linear, in a dataclass."""

        def forward(self, h: Tensor) -> Any:
            return Output(super().forward(h))

    def build(self) -> None:
        self.b[3] = self.Layer(WIDTH, WIDTH)

    def span(self, h: Tensor) -> Tensor:
        return self.b[3](self.b[2](h)).h


class CalledTwice(nn.Module):
    """A smaller model whose layers run twice; the span lies in the first round."""

    def __init__(self) -> None:
        super().__init__()
        self.b = nn.ModuleList(layer() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            for each in self.b:
                x = each(x)
        return x


class Checkpointed(Six):
    """Layers on both sides of the span are checkpointed."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](checkpoint(self.b[0], x, use_reentrant=False))
        return self.b[5](checkpoint(self.b[4], self.span(h), use_reentrant=False))


class Detached(Six):
    """Gradients stop before the span, and behind it in one of two terms."""

    def before(self, h: Tensor) -> Tensor:
        return h.detach()

    def behind(self, h: Tensor) -> Tensor:
        return h + h.detach()


class Closures(Six):
    """The layers are called by functions made in the constructor."""

    def build(self) -> None:
        self.steps = [lambda model, h, place=place: model.b[place](h) for place in range(6)]

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(self, x)
        return x


class EarlyExit(Six):
    """A constant says how many layers run."""

    def forward(self, x: Tensor) -> Tensor:
        for index, each in enumerate(self.b):
            x = each(x)
            if index == 4:
                return x
        return x


class PerShape(Six):
    """A table by shape, filled as shapes come."""

    def build(self) -> None:
        self.b[4] = self.Table()

    class Table(nn.Module):
        """Adds a table of the shape of the input."""

        def __init__(self) -> None:
            super().__init__()
            self.tables: dict[Any, Tensor] = {}

        def forward(self, h: Tensor) -> Tensor:
            if h.shape not in self.tables:
                self.tables[h.shape] = torch.linspace(0, 1, h.numel()).reshape(h.shape)
            return h + self.tables[h.shape]


class Residual(Six):
    """The state at the start is added behind the span."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        return self.b[5](self.b[4](self.span(h)) + h) + x


class Plain(Six):
    """Six layers."""


KINDS = (
    Plain,
    Residual,
    WriteBehind,
    ViewOfStart,
    NoiseInside,
    TiedLayers,
    TiedWeights,
    LayerHooks,
    InDataclass,
    Checkpointed,
    Detached,
    Closures,
    EarlyExit,
    PerShape,
)
TRAINED = (TrainNorm, Checkpointed)
CASES = [case(CAUSE, kind, twin=False) for kind in KINDS]
for kind in TRAINED:
    one = case(CAUSE, kind, twin=False, train=True)
    CASES.append(replace(one, name=f"{one.name} in training"))
CASES.append(case(CAUSE, CalledTwice, twin=False, start="b.0#0", end="b.2#0"))
CASES += [replace(one, cause=CAUSE) for one in LATER]
