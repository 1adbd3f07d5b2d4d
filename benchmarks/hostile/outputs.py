"""Hostile: layers that return two tensors, of which the swap replaces one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from benchmarks.hostile.case import Six, case, layer

CAUSE = "two live tensors"


class Pair(NamedTuple):
    """A state and something else."""

    h: Tensor
    other: Tensor


@dataclass
class Output:
    """The same as a dataclass."""

    h: Tensor
    other: Tensor


class Several(nn.Module):
    """A layer that returns two tensors, in some structure."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.fc, self.kind = layer(), kind

    def forward(self, h: Tensor) -> Any:
        h = self.fc(h)
        other = h.mean(0)
        if self.kind == "tuple":
            return h, other
        if self.kind == "list":
            return [h, other]
        if self.kind == "dict":
            return {"h": h, "other": other}
        if self.kind == "nested":
            return {"all": (h, [other])}
        return Output(h, other) if self.kind == "dataclass" else Pair(h, other)


class TupleEnd(Six):
    """The end returns a tuple, whose second tensor is computed from the first and used."""

    kind, place = "tuple", 3

    def build(self) -> None:
        self.b[self.place] = Several(self.kind)

    def both(self, got: Any) -> tuple[Tensor, Tensor]:
        """The two tensors."""
        return got[0], got[1]

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        h, other = self.both(self.b[3](self.b[2](h)))
        return self.b[5](h if self.harmless else h + other)


class ListEnd(TupleEnd):
    """A list."""

    kind = "list"


class DictEnd(TupleEnd):
    """A dict."""

    kind = "dict"

    def both(self, got: Any) -> tuple[Tensor, Tensor]:
        return got["h"], got["other"]


class NestedEnd(TupleEnd):
    """Nested containers."""

    kind = "nested"

    def both(self, got: Any) -> tuple[Tensor, Tensor]:
        return got["all"][0], got["all"][1][0]


class NamedTupleEnd(TupleEnd):
    """A named tuple."""

    kind = "named tuple"

    def both(self, got: Any) -> tuple[Tensor, Tensor]:
        return got.h, got.other


class DataclassEnd(NamedTupleEnd):
    """A dataclass."""

    kind = "dataclass"


class TupleInside(TupleEnd):
    """A layer inside the span returns a tuple, whose second tensor is used behind."""

    place = 2

    def forward(self, x: Tensor) -> Tensor:
        h, other = self.both(self.b[2](self.b[1](self.b[0](x))))
        y = self.b[3](h)
        return self.b[5](y if self.harmless else y + other)


class TupleStart(TupleEnd):
    """The start returns a tuple, whose second tensor enters the span; in the twin it skips it."""

    place = 1

    def forward(self, x: Tensor) -> Tensor:
        h, other = self.both(self.b[1](self.b[0](x)))
        y = self.b[3](self.b[2](h if self.harmless else h * other))
        return self.b[5](y + other)


KINDS = (
    TupleEnd,
    ListEnd,
    DictEnd,
    NestedEnd,
    NamedTupleEnd,
    DataclassEnd,
    TupleInside,
    TupleStart,
)
CASES = [case(CAUSE, kind) for kind in KINDS]
