"""Hostile: unusual ways to build a model and to call its layers."""

from __future__ import annotations

import threading
import types
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Six, case, layer

if TYPE_CHECKING:
    from collections.abc import Iterator

CAUSE = "unusual construction"


class Built(Six):
    """A construction that is harmless unless its functions reach another copy of the model."""


class ClosureForward(Built):
    """The forward is a function set on the instance, which holds on to the original layers."""

    def build(self) -> None:
        if not self.harmless:
            self.forward = lambda x: Six.forward(self, x)


class PatchedLayer(Built):
    """The forward of a layer behind the span is replaced by one that reads an inner layer."""

    def build(self) -> None:
        inner, last, plain = self.b[2], self.b[4], self.b[4].forward
        if self.harmless:
            last.forward = types.MethodType(lambda own, h: nn.Sequential.forward(own, h), last)
        else:
            last.forward = lambda h: plain(h) + inner[0].weight.sum()


class OverriddenCall(Built):
    """``__call__`` changes input and output, around all hooks."""

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x if self.harmless else x * 2) * (1 if self.harmless else 3)


class OverriddenLayerCall(Built):
    """A layer before the span has such a ``__call__``."""

    class Loud(nn.Linear):
        """Twice."""

        factor = 2.0

        def __call__(self, h: Tensor) -> Tensor:
            return super().__call__(h) * self.factor

    def build(self) -> None:
        self.b[0] = self.Loud(WIDTH, WIDTH)
        self.b[0].factor = 1.0 if self.harmless else 2.0


class PlainList(Built):
    """Layers in a Python list, which the model does not know to be its own."""

    def build(self) -> None:
        self.extra = nn.ModuleList([layer()]) if self.harmless else [layer()]

    def behind(self, h: Tensor) -> Tensor:
        return self.extra[0](h)


class InnerInPlainList(Built):
    """A layer of the span is also in a list, and runs again behind."""

    def build(self) -> None:
        self.extra = [self.b[0] if self.harmless else self.b[2]]

    def behind(self, h: Tensor) -> Tensor:
        return self.extra[0](h)


class EndInPlainList(Built):
    """So is the end of the span, which the reference overrides each time."""

    def build(self) -> None:
        self.extra = [self.b[0] if self.harmless else self.b[3]]

    def behind(self, h: Tensor) -> Tensor:
        return self.extra[0](h)


class InnerWeightOutside(Built):
    """A weight of the span is read behind, and its layer not called."""

    def behind(self, h: Tensor) -> Tensor:
        return h @ (self.b[0] if self.harmless else self.b[2])[0].weight


class Generated(Built):
    """The layers come from a generator."""

    def layers(self) -> Iterator[nn.Module]:
        """In order, with a residual between the last."""
        yield from self.b

    def forward(self, x: Tensor) -> Tensor:
        h, past = x, []
        for each in self.layers():
            h = each(h)
            past.append(h)
        return h + past[1 if self.harmless else 2]


class RecursiveLayers(Built):
    """The forward calls itself, layer by layer, and adds on the way back."""

    def run(self, h: Tensor, depth: int) -> Tensor:
        """The layers from one on."""
        if depth == len(self.b):
            return h
        y = self.run(self.b[depth](h), depth + 1)
        return y if self.harmless or depth != 3 else y + h

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, 0)


class InThread(Built):
    """A layer runs in another thread, and reads what the span has left."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        inner = self.b[2](h)
        found: list[Tensor] = []
        given = h if self.harmless else inner

        def run() -> None:
            found.append(self.b[4](given))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return self.b[5](self.b[3](inner) + found[0])


class CopiesItself(Built):
    """``copy.deepcopy`` gives the model itself."""

    def __deepcopy__(self, memo: dict[int, Any]) -> CopiesItself:
        if not self.harmless:
            return self
        with torch.random.fork_rng(devices=[]):
            new = CopiesItself(harmless=True)
        new.load_state_dict(self.state_dict())
        return new.train(self.training)


class Parented(Built):
    """A layer knows the model it is part of, and calls one of its layers."""

    class Child(nn.Linear):
        """Calls a layer of the parent first."""

        place = 0

        def forward(self, h: Tensor) -> Tensor:
            return super().forward(self.parent[0].b[self.place](h))

    def build(self) -> None:
        self.b[4] = self.Child(WIDTH, WIDTH)
        self.b[4].parent, self.b[4].place = [self], 0 if self.harmless else 2


class Functional(Built):
    """The forward calls a layer with other weights, computed from the input."""

    def span(self, h: Tensor) -> Tensor:
        h = self.b[2](h)
        weights = {key: value * 0.5 for key, value in self.b[3].named_parameters()}
        if self.harmless:
            return self.b[3](h)
        return torch.func.functional_call(self.b[3], weights, (h,))


KINDS = (
    ClosureForward,
    PatchedLayer,
    OverriddenCall,
    OverriddenLayerCall,
    PlainList,
    InnerInPlainList,
    EndInPlainList,
    InnerWeightOutside,
    Generated,
    RecursiveLayers,
    InThread,
    CopiesItself,
    Parented,
    Functional,
)
CASES = [case(CAUSE, kind) for kind in KINDS]
