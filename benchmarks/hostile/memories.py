"""Hostile: models that remember what they were given."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Six, case

CAUSE = "state advances in the forward"


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


KINDS = (
    Momentum,
    CenteringBefore,
    CenteringBehind,
    Codebook,
    PythonCounter,
    History,
    Recurrent,
    LateBuffer,
)
CASES = [case(CAUSE, kind) for kind in KINDS]
CASES.append(case(CAUSE, Alternating, twin=False))
