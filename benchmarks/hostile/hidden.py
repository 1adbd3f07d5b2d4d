"""Hostile: a value from inside the span is used outside, where the end or a branch hides it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Inputs, Six, case, fresh, rows

if TYPE_CHECKING:
    from collections.abc import Callable


class Escape(Six):
    """The layer before the span's last is added behind; in the twin the state at the start is.

    One branch on the input keeps it from becoming a graph.
    """

    end: Callable[[], nn.Module] = nn.Identity

    def build(self) -> None:
        self.b[3] = type(self).end()

    def forward(self, x: Tensor) -> Tensor:
        if not self.harmless and float(x[0, 0]) > 1e9:
            x = x + 0
        h = self.b[1](self.b[0](x))
        inner = self.b[2](h)
        return self.b[5](self.b[4](self.b[3](inner))) + (h if self.harmless else inner)


class BehindDropout(Escape):
    """The last layer is dropout in eval mode, which returns its input itself."""

    end = nn.Dropout


class BehindHardtanh(Escape):
    """The last layer changes large values only, and there are none."""

    end = nn.Hardtanh


class BehindRelu(Escape):
    """The last layer changes negative values only, and there are none."""

    end = nn.ReLU

    def build(self) -> None:
        super().build()
        self.b[2] = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Sigmoid())


class BehindIdentity(Escape):
    """The last layer is the identity."""

    end = nn.Identity


class BehindInplaceRelu(Escape):
    """The last layer writes into its input, and the inner value is that."""

    end = staticmethod(lambda: nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        inner = self.b[2](h)
        y = self.b[3](inner)
        return self.b[5](self.b[4](y)) + (h if self.harmless else inner)


class ClosedGate(Six):
    """A gate that is closed on the example, and open on other inputs, lets an inner value pass."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        inner = self.b[2](h)
        gate = nn.functional.relu(x.mean() - 0.5)
        return self.b[5](self.b[4](self.b[3](inner)) + gate * (h if self.harmless else inner))


class OneBranch(Six):
    """An inner value escapes on one branch only, which the example does not take."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        inner = self.b[2](h)
        y = self.b[3](inner)
        if float(x.mean()) > 0.5:
            y = y + (h if self.harmless else inner)
        return self.b[5](self.b[4](y))


def moderate() -> list[Inputs]:
    """Inputs on which the last layers do something, and some on which they do not."""
    return [*fresh()[:3], *((rows(seed) * 0.5,) for seed in (11, 12, 13))]


def low() -> Inputs:
    """An example with a low mean."""
    return (rows(0) - 1,)


HIDDEN = (BehindDropout, BehindHardtanh, BehindRelu, BehindIdentity, BehindInplaceRelu)


CASES = [case("escape hidden by the end", kind, fresh=moderate) for kind in HIDDEN]
CASES += [case("escape hidden by a branch", kind, example=low) for kind in (ClosedGate, OneBranch)]
