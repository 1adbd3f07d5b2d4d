"""Hostile: what no call of the example shows, and later calls do."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Six, case

if TYPE_CHECKING:
    from collections.abc import Iterator


CAUSE = "rare or late"
LIMITS = [1e9]
MOST = 2.5
"""More than the first layer makes of the example, and less than of some other inputs."""


class Limited(nn.Linear):
    """Linear, cut off at a limit that is set elsewhere."""

    limit = 1e9

    def forward(self, h: Tensor) -> Tensor:
        limit = min(self.limit, LIMITS[-1])
        return super().forward(h).clamp(-limit, limit)


@contextlib.contextmanager
def limit(value: float) -> Iterator[None]:
    """Within it layers are cut off."""
    LIMITS.append(value)
    try:
        yield
    finally:
        LIMITS.pop()


class LimitByContext(Six):
    """A context manager sets a limit for the first layer."""

    def build(self) -> None:
        self.b[0] = Limited(WIDTH, WIDTH)

    def first(self, x: Tensor) -> Tensor:
        """The first layer."""
        with contextlib.nullcontext() if self.harmless else limit(MOST):
            return self.b[0](x)

    def forward(self, x: Tensor) -> Tensor:
        return self.b[5](self.b[4](self.span(self.b[1](self.first(x)))))


class LimitByAttribute(LimitByContext):
    """An attribute of the layer is set and put back."""

    def first(self, x: Tensor) -> Tensor:
        self.b[0].limit = 1e9 if self.harmless else MOST
        h = self.b[0](x)
        self.b[0].limit = 1e9
        return h


class LimitByHook(LimitByContext):
    """A hook is put on the layer for one call."""

    def first(self, x: Tensor) -> Tensor:
        if self.harmless:
            return self.b[0](x)
        handle = self.b[0].register_forward_hook(lambda _, given, out: out.clamp(-MOST, MOST))
        h = self.b[0](x)
        handle.remove()
        return h


class FlagOfLayer(Six):
    """A layer before the span says whether its output is large, and the model asks it."""

    place = 0

    class Telling(nn.Linear):
        """Linear; remembers whether anything was large."""

        large = False

        def forward(self, h: Tensor) -> Tensor:
            h = super().forward(h)
            self.large = bool(h.detach().abs().max() > MOST)
            return h

    def build(self) -> None:
        self.b[1] = nn.Linear(WIDTH, WIDTH)
        self.b[self.place] = self.Telling(WIDTH, WIDTH)

    def behind(self, h: Tensor) -> Tensor:
        return h * 2 if not self.harmless and self.b[self.place].large else h


class FlagOfInner(FlagOfLayer):
    """The same of a layer in the span."""

    place = 2


CASES = [
    case(CAUSE, LimitByContext),
    case(CAUSE, LimitByAttribute),
    case(CAUSE, LimitByHook),
    case(CAUSE, FlagOfLayer),
    case(CAUSE, FlagOfInner),
]
