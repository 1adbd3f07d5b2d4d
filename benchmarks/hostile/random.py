"""Hostile: random numbers that tracing draws once, or that are drawn in another order."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Six, case

if TYPE_CHECKING:
    from collections.abc import Callable

CAUSE = "random draws are frozen"


def fixed() -> torch.Generator:
    """A generator of its own, in the same state each time."""
    return torch.Generator().manual_seed(0)


class TorchNoiseBefore(Six):
    """Noise of fixed shape before the span: no tensor of the call has a part in it."""

    def before(self, h: Tensor) -> Tensor:
        return h + torch.randn(WIDTH, generator=fixed() if self.harmless else None)


class TorchNoiseBehind(TorchNoiseBefore):
    """The same behind the span."""

    behind, before = TorchNoiseBefore.before, Six.before


class TorchNoiseInsideAndBehind(Six):
    """Noise in the span: without it, the noise behind it would be another."""

    def inside(self, h: Tensor) -> Tensor:
        return h + torch.randn(WIDTH, generator=fixed() if self.harmless else None)

    def behind(self, h: Tensor) -> Tensor:
        return h + torch.randn(WIDTH, generator=fixed() if self.harmless else None)


class ShapedNoiseBehind(Six):
    """Noise of the shape of the batch behind the span."""

    def behind(self, h: Tensor) -> Tensor:
        return h + (torch.ones_like(h) if self.harmless else torch.randn(h.shape))


class NumpyNoiseBefore(Six):
    """Noise drawn by NumPy before the span."""

    def before(self, h: Tensor) -> Tensor:
        draw: Callable[[], float] = np.random.random
        return h + (np.random.default_rng(0).random() if self.harmless else draw())


class NumpyNoiseBehind(NumpyNoiseBefore):
    """The same behind the span."""

    behind, before = NumpyNoiseBefore.before, Six.before


class PythonNoiseBefore(Six):
    """A random factor drawn by Python before the span."""

    def before(self, h: Tensor) -> Tensor:
        return h * (random.Random(0).random() if self.harmless else random.random())


class PythonNoiseBehind(PythonNoiseBefore):
    """The same behind the span."""

    behind, before = PythonNoiseBefore.before, Six.before


class PythonNoiseInsideAndBehind(Six):
    """Python's draws in the span move those behind it."""

    def inside(self, h: Tensor) -> Tensor:
        return h * (random.Random(0).random() if self.harmless else random.random())

    def behind(self, h: Tensor) -> Tensor:
        return h * (random.Random(0).random() if self.harmless else random.random())


class RandomSkip(Six):
    """A layer is left out by chance before the span."""

    def before(self, h: Tensor) -> Tensor:
        chance = random.Random(0) if self.harmless else random
        return h if chance.random() < 0.5 else self.b[0](h)


class Shuffled(Six):
    """Features change places by chance before the span."""

    def before(self, h: Tensor) -> Tensor:
        return h[:, torch.randperm(WIDTH, generator=fixed() if self.harmless else None)]


class AlwaysDropout(Six):
    """Dropout in eval mode, as for uncertainties, before the span."""

    def before(self, h: Tensor) -> Tensor:
        return nn.functional.dropout(h, 0.0 if self.harmless else 0.5, training=True)


class NoisyLayer(nn.Linear):
    """Adds noise to its weights, also in eval mode."""

    amount = 0.3

    def forward(self, x: Tensor) -> Tensor:
        noise = self.amount * torch.randn(WIDTH, WIDTH) if self.amount else 0.0
        return nn.functional.linear(x, self.weight + noise, self.bias)


class NoisyWeights(Six):
    """Such a layer before the span and one behind."""

    def build(self) -> None:
        self.b[0], self.b[4] = NoisyLayer(WIDTH, WIDTH), NoisyLayer(WIDTH, WIDTH)
        if self.harmless:
            self.b[0].amount = self.b[4].amount = 0.0


class OwnGenerator(Six):
    """The model has a generator of its own, whose state moves on with each call."""

    def build(self) -> None:
        self.generator = torch.Generator().manual_seed(5)

    def before(self, h: Tensor) -> Tensor:
        return h + torch.randn(WIDTH, generator=fixed() if self.harmless else self.generator)


class OwnPythonGenerator(Six):
    """The same with one of Python's."""

    def build(self) -> None:
        self.chance = random.Random(5)

    def behind(self, h: Tensor) -> Tensor:
        return h + (random.Random(5) if self.harmless else self.chance).random()


CASES = [
    case(CAUSE, kind)
    for kind in (
        TorchNoiseBefore,
        TorchNoiseBehind,
        TorchNoiseInsideAndBehind,
        ShapedNoiseBehind,
        NumpyNoiseBefore,
        NumpyNoiseBehind,
        PythonNoiseBefore,
        PythonNoiseBehind,
        PythonNoiseInsideAndBehind,
        RandomSkip,
        Shuffled,
        AlwaysDropout,
        NoisyWeights,
        OwnGenerator,
        OwnPythonGenerator,
    )
]
