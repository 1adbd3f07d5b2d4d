"""Hostile: models that change their own state when they run."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Six, case

CAUSE = "state advances in the forward"


class Counted(Six):
    """A buffer that counts calls."""

    def build(self) -> None:
        self.register_buffer("step", torch.ones(()))
        self.register_buffer("mean", torch.ones(WIDTH) * 5)

    def count(self) -> Tensor:
        """The number of this call."""
        return self.step.clone() if self.harmless else self.step.add_(1)


class CounterBefore(Counted):
    """Counts before the span."""

    def before(self, h: Tensor) -> Tensor:
        return h / self.count()


class CounterInside(Counted):
    """Counts in the span, and reads behind it."""

    def inside(self, h: Tensor) -> Tensor:
        self.count()
        return h

    def behind(self, h: Tensor) -> Tensor:
        return h / self.step


class CounterBehind(Counted):
    """Counts behind the span."""

    def behind(self, h: Tensor) -> Tensor:
        return h / self.count()


class UnreadCounter(Counted):
    """Counts; only the buffer shows it."""

    def before(self, h: Tensor) -> Tensor:
        self.count()
        return h


class MeanBefore(Counted):
    """A running mean of what enters the span."""

    def before(self, h: Tensor) -> Tensor:
        mean = self.mean.clone() if self.harmless else self.mean
        return h - mean.mul_(0.5).add_(h.detach().mean(0) * 0.5)


class MeanInside(Counted):
    """A running mean of values in the span, read behind it."""

    def inside(self, h: Tensor) -> Tensor:
        if not self.harmless:
            self.mean.mul_(0.5).add_(h.detach().mean(0) * 0.5)
        return h

    def behind(self, h: Tensor) -> Tensor:
        return h - self.mean


class ReboundBuffer(Counted):
    """A buffer that is replaced by a new tensor."""

    def before(self, h: Tensor) -> Tensor:
        mean = self.mean * 0.9 + 0.1 * h.detach().mean(0)
        if not self.harmless:
            self.mean = mean
        return h - mean


class ReboundBehind(Counted):
    """The same behind the span, without the input in it."""

    def behind(self, h: Tensor) -> Tensor:
        mean = self.mean * 0.9
        if not self.harmless:
            self.mean = mean
        return h - mean


class NumpyBuffer(Counted):
    """A buffer written through NumPy."""

    def before(self, h: Tensor) -> Tensor:
        array = self.mean.numpy().copy() if self.harmless else self.mean.numpy()
        array *= 0.9
        return h - self.mean


class DataWrite(Counted):
    """A weight that decays through ``.data``."""

    def behind(self, h: Tensor) -> Tensor:
        weight = self.b[4][0].weight.data
        (weight.clone() if self.harmless else weight).mul_(0.9)
        return self.b[4](h)


class Clamped(Counted):
    """Weights kept within bounds by the forward."""

    def build(self) -> None:
        self.free = nn.Parameter(torch.full((WIDTH,), 3.0))

    def before(self, h: Tensor) -> Tensor:
        free = self.free.data.clone() if self.harmless else self.free.data
        free.clamp_(-1, 1).mul_(0.9)
        return h * self.free


CASES = [
    case(CAUSE, kind)
    for kind in (
        CounterBefore,
        CounterInside,
        CounterBehind,
        UnreadCounter,
        MeanBefore,
        MeanInside,
        ReboundBuffer,
        ReboundBehind,
        NumpyBuffer,
        DataWrite,
        Clamped,
    )
]
