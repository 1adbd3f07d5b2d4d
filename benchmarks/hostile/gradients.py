"""Hostile: the outputs are right, and the gradients are others."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.hostile.case import Six, case

CAUSE = "gradients are lost or found"


class Frozen(Six):
    """Parts of the forward run without gradients."""

    def context(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self.harmless else torch.no_grad()


class NoGradBefore(Frozen):
    """A layer before the span does."""

    def before(self, h: Tensor) -> Tensor:
        with self.context():
            return self.b[0](h)


class NoGradInside(Frozen):
    """A layer inside the span does, which is replaced."""

    def inside(self, h: Tensor) -> Tensor:
        with self.context():
            return self.b[0](h)


class NoGradAroundStart(Frozen):
    """All up to the start of the span does."""

    def forward(self, x: Tensor) -> Tensor:
        with self.context():
            h = self.b[1](self.b[0](x))
        return self.b[5](self.b[4](self.span(h)))


class NoGradAroundEnd(Frozen):
    """The end does, so what is put in does too."""

    def span(self, h: Tensor) -> Tensor:
        h = self.b[2](h)
        with self.context():
            return self.b[3](h)


class NoGradBehind(Frozen):
    """A layer behind the span does."""

    def behind(self, h: Tensor) -> Tensor:
        with self.context():
            offset = self.b[0](h)
        return h + offset


class GradModeCalled(Six):
    """Gradients are switched off and on by calls, without a context."""

    def before(self, h: Tensor) -> Tensor:
        if self.harmless:
            return self.b[0](h)
        was = torch.is_grad_enabled()
        torch.set_grad_enabled(False)
        h = self.b[0](h)
        torch.set_grad_enabled(was)
        return h


class EnabledAgain(Six):
    """Gradients are on for one layer while all others run without."""

    def forward(self, x: Tensor) -> Tensor:
        if self.harmless:
            return super().forward(x)
        with torch.no_grad():
            h = self.b[1](self.b[0](x))
            y = self.span(h)
            with torch.enable_grad():
                y = self.b[4](y)
        return self.b[5](y)


class Decorated(Six):
    """A method is decorated to run without gradients."""

    @torch.no_grad()
    def still(self, h: Tensor) -> Tensor:
        return self.b[0](h)

    def before(self, h: Tensor) -> Tensor:
        return self.b[0](h) if self.harmless else self.still(h)


class Inference(Six):
    """A layer before the span runs in inference mode."""

    def before(self, h: Tensor) -> Tensor:
        with torch.inference_mode(not self.harmless):
            h = self.b[0](h)
        return h.clone()


class DetachedBefore(Six):
    """The state before the span is detached."""

    def before(self, h: Tensor) -> Tensor:
        return h if self.harmless else h.detach()


class DetachedBehind(Six):
    """The state behind the span is detached."""

    def behind(self, h: Tensor) -> Tensor:
        return h if self.harmless else h.detach()


class Scaled(torch.autograd.Function):
    """The identity, whose gradient is multiplied."""

    @staticmethod
    def forward(context: Any, h: Tensor, factor: float) -> Tensor:
        context.factor = factor
        return h.clone()

    @staticmethod
    def backward(context: Any, slope: Tensor) -> tuple[Tensor, None]:
        return slope * context.factor, None


class ReversedBefore(Six):
    """Gradients are reversed before the span."""

    def before(self, h: Tensor) -> Tensor:
        return Scaled.apply(h, 1.0 if self.harmless else -1.0)


class ReversedInside(Six):
    """Gradients are reversed inside the span, which is replaced."""

    def inside(self, h: Tensor) -> Tensor:
        return Scaled.apply(h, 1.0 if self.harmless else -1.0)


class ReversedBehind(Six):
    """Gradients are reversed behind the span."""

    def behind(self, h: Tensor) -> Tensor:
        return Scaled.apply(h, 1.0 if self.harmless else -1.0)


class Reverser(nn.Module):
    """A layer that reverses gradients."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, h: Tensor) -> Tensor:
        return Scaled.apply(h, self.factor)


class ReverserAsStart(Six):
    """The span starts at a layer that reverses gradients."""

    def build(self) -> None:
        self.b[1] = Reverser(1.0 if self.harmless else -1.0)


class StraightThrough(Six):
    """The sign is taken behind the span, with the gradient of the identity."""

    def behind(self, h: Tensor) -> Tensor:
        return h if self.harmless else h + (torch.sign(h) - h).detach()


class RequiresGradSwitched(Six):
    """The forward freezes a layer."""

    def before(self, h: Tensor) -> Tensor:
        self.b[0].requires_grad_(self.harmless)
        return self.b[0](h)


class EnergyGradient(Six):
    """The output is the gradient of an energy, computed in the forward."""

    def forward(self, x: Tensor) -> Tensor:
        if self.harmless:
            return super().forward(x)
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(super().forward(x).sum(), x, create_graph=True)
        return slope


class GradientByName(Six):
    """The forward asks whether gradients are on."""

    def behind(self, h: Tensor) -> Tensor:
        return h * 2 if torch.is_grad_enabled() and not self.harmless else h


class NormHook(Six):
    """A hook on a parameter scales its gradient."""

    def build(self) -> None:
        factor = 1.0 if self.harmless else 0.1
        self.b[0][0].weight.register_hook(lambda slope: slope * factor)


KINDS = (
    NoGradBefore,
    NoGradInside,
    NoGradAroundStart,
    NoGradAroundEnd,
    NoGradBehind,
    GradModeCalled,
    EnabledAgain,
    Decorated,
    Inference,
    DetachedBefore,
    DetachedBehind,
    ReversedBefore,
    ReversedInside,
    ReversedBehind,
    ReverserAsStart,
    StraightThrough,
    RequiresGradSwitched,
    EnergyGradient,
    GradientByName,
    NormHook,
)
CASES = [case(CAUSE, kind) for kind in KINDS]
