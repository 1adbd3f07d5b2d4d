"""Hostile: models that change their own state when they run."""

from __future__ import annotations

from collections import deque

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


class Momentum(Six):
    """A key encoder that follows a query encoder."""

    def build(self) -> None:
        self.key, self.query = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        if not self.harmless:
            with torch.no_grad():
                pairs = zip(self.key.parameters(), self.query.parameters(), strict=True)
                for slow, fast in pairs:
                    slow.data.mul_(0.5).add_(fast.data, alpha=0.5)
        return super().forward(x) + self.key(x)


class Centering(nn.Module):
    """A layer with a running mean, also in eval mode."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("mean", torch.ones(WIDTH) * 5)

    def forward(self, h: Tensor) -> Tensor:
        if self.rate:
            self.mean.mul_(1 - self.rate).add_(h.detach().mean(0) * self.rate)
        return h - self.mean


class CenteringBefore(Six):
    """Such a layer before the span."""

    def build(self) -> None:
        self.b[0] = Centering(0.0 if self.harmless else 0.5)


class CenteringBehind(Six):
    """Such a layer behind the span."""

    def build(self) -> None:
        self.b[4] = Centering(0.0 if self.harmless else 0.5)


class Codebook(Six):
    """Vector quantization that moves its codes towards what it is given."""

    def build(self) -> None:
        self.register_buffer("codes", torch.randn(4, WIDTH))

    def behind(self, h: Tensor) -> Tensor:
        index = torch.cdist(h, self.codes).argmin(1)
        if not self.harmless:
            means = torch.zeros_like(self.codes).index_add(0, index, h.detach())
            self.codes.mul_(0.8).add_(means, alpha=0.05)
        return h + (self.codes[index] - h).detach()


class PythonCounter(Six):
    """A Python number that counts calls."""

    def build(self) -> None:
        self.calls = 1

    def before(self, h: Tensor) -> Tensor:
        self.calls += 0 if self.harmless else 1
        return h / self.calls


class History(Six):
    """A queue of past states, averaged into the present one."""

    def build(self) -> None:
        self.past: deque[Tensor] = deque([torch.zeros(WIDTH)], maxlen=3)

    def behind(self, h: Tensor) -> Tensor:
        past = list(self.past) if self.harmless else self.past
        past.append(h.detach().mean(0))
        return h + torch.stack([*past]).mean(0) * (0 if self.harmless else 1)


class Recurrent(Six):
    """A state that is carried from call to call."""

    def build(self) -> None:
        self.carried = torch.zeros(WIDTH)

    def before(self, h: Tensor) -> Tensor:
        new = torch.tanh(self.carried + h.detach().mean(0))
        if not self.harmless:
            self.carried = new
        return h + new


class LateBuffer(Six):
    """A buffer made at the first call and scaled at every other."""

    def before(self, h: Tensor) -> Tensor:
        if self.harmless:
            return h
        if not hasattr(self, "scale"):
            self.register_buffer("scale", h.detach().abs().mean(0))
        self.scale.mul_(0.9)
        return h / self.scale


class Alternating(Six):
    """Every other call takes another layer."""

    def build(self) -> None:
        self.turn = False

    def behind(self, h: Tensor) -> Tensor:
        self.turn = not (self.turn or self.harmless)
        return self.b[0](h) if self.turn else self.b[1](h) if self.harmless else h


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
        Momentum,
        CenteringBefore,
        CenteringBehind,
        Codebook,
        PythonCounter,
        History,
        Recurrent,
        LateBuffer,
    )
]
CASES.append(case(CAUSE, Alternating, twin=False))
