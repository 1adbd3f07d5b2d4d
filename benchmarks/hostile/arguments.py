"""Hostile: arguments that the model fills, and arguments that come later or change kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.hostile.case import WIDTH, Inputs, Six, case, rows

FILLED = "arguments are filled"
LATER = "arguments change after the swap"


class Record(Six):
    """Writes an inner value into an argument; in the twin the state behind the span."""

    def forward(self, x: Tensor, into: Any) -> Tensor:
        h = self.b[2](self.b[1](self.b[0](x)))
        y = self.b[4](self.b[3](h))
        self.write(into, y if self.harmless else h)
        return self.b[5](y)

    def write(self, into: Any, h: Tensor) -> None:
        """Into the argument."""


class IntoDict(Record):
    """A dict."""

    def write(self, into: dict[str, Tensor], h: Tensor) -> None:
        into["h"] = h


class IntoList(Record):
    """A list."""

    def write(self, into: list[Tensor], h: Tensor) -> None:
        into.append(h)


class IntoTensor(Record):
    """A tensor."""

    def write(self, into: Tensor, h: Tensor) -> None:
        into.copy_(h.detach().mean(0))


@dataclass
class Extras:
    """An object to fill."""

    h: Any = None


class IntoObject(Record):
    """An attribute of an object."""

    def write(self, into: Extras, h: Tensor) -> None:
        into.h = h


class IntoNested(Record):
    """A list in a dict."""

    def write(self, into: dict[str, list[Tensor]], h: Tensor) -> None:
        into["all"].append(h)


class OutputIntoDict(Record):
    """The span's output, which is the module's."""

    def forward(self, x: Tensor, into: dict[str, Tensor]) -> Tensor:
        h = self.b[3](self.b[2](self.b[1](self.b[0](x))))
        if not self.harmless:
            into["h"] = h
        return self.b[5](h)


class StartIntoList(Record):
    """The state at the start."""

    def forward(self, x: Tensor, into: list[Tensor]) -> Tensor:
        h = self.b[1](self.b[0](x))
        if not self.harmless:
            into.append(h)
        return self.b[5](self.span(h))


class TakesAway(Record):
    """Takes an entry out of a dict before the span."""

    def forward(self, x: Tensor, into: dict[str, Tensor]) -> Tensor:
        scale = into["a"] if self.harmless else into.pop("a")
        return super(Record, self).forward(x * scale)


class Optional(Six):
    """A second input that may be missing."""

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        h = self.span(self.b[1](self.b[0](x)))
        return self.b[5](h if self.harmless or extra is None else h + extra)


class OptionalBefore(Six):
    """The same before the span."""

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        return super().forward(x if self.harmless or extra is None else x + extra)


class Flag(Six):
    """A flag chooses what is returned."""

    def forward(self, x: Tensor, hidden: bool = False) -> Any:
        h = self.b[1](self.b[0](x))
        y = self.b[5](self.span(h))
        return (y, h) if not self.harmless and hidden else y


class InnerFlag(Six):
    """A flag asks for a value in the span."""

    def forward(self, x: Tensor, hidden: bool = False) -> Any:
        inner = self.b[2](self.b[1](self.b[0](x)))
        y = self.b[5](self.b[3](inner))
        return (y, inner) if not self.harmless and hidden else y


class Number(Six):
    """A number scales the state."""

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return super().forward(x * (1.0 if self.harmless else scale))


class Repeats(Six):
    """A number says how often a layer runs."""

    def forward(self, x: Tensor, count: int = 1) -> Tensor:
        for _ in range(1 if self.harmless else count):
            x = self.b[0](x)
        return super().forward(x)


class Mode(Six):
    """A word chooses the reduction."""

    def forward(self, x: Tensor, mode: str = "mean") -> Tensor:
        y = super().forward(x)
        return y.mean(0) if self.harmless or mode == "mean" else y.sum(0)


class Many(Six):
    """A list of tensors of any length."""

    def forward(self, parts: list[Tensor]) -> Tensor:
        return super().forward(parts[0] if self.harmless else torch.stack(list(parts)).sum(0))


class Keywords(Six):
    """Any keyword arguments."""

    def forward(self, x: Tensor, **named: Tensor) -> Tensor:
        return super().forward(x if self.harmless else sum(named.values(), x))


def with_(*more: Any) -> list[Inputs]:
    """Six inputs with further arguments, in turn."""
    return [(rows(seed, 5 if seed == 4 else 6), more[seed % len(more)]) for seed in range(1, 7)]


def plain() -> list[Inputs]:
    """Without and with a second input."""
    return [(x,) if seed % 2 else (x, rows(seed + 20, len(x))) for seed, (x, _) in zip(
        range(6), with_(None), strict=True
    )]  # fmt: skip


def first(*more: Any) -> Inputs:
    return (rows(0), *more)


def filled(kind: type[Six], *more: Any) -> Any:
    return case(FILLED, kind, example=lambda: with_(*more)[5], fresh=lambda: with_(*more))


CASES = [
    filled(IntoDict, {}),
    filled(IntoList, []),
    filled(IntoTensor, torch.zeros(WIDTH)),
    filled(IntoObject, Extras()),
    filled(IntoNested, {"all": []}),
    filled(OutputIntoDict, {}),
    filled(StartIntoList, []),
    filled(TakesAway, {"a": torch.ones(WIDTH)}),
    case(LATER, Optional, example=first, fresh=plain),
    case(LATER, OptionalBefore, example=first, fresh=plain),
    case(LATER, Flag, example=first, fresh=lambda: with_(False, True)),
    case(LATER, InnerFlag, example=first, fresh=lambda: with_(False, True)),
    case(LATER, Number, example=lambda: first(1.0), fresh=lambda: with_(0.5, 2.0)),
    case(LATER, Repeats, example=lambda: first(1), fresh=lambda: with_(2, 1, 3)),
    case(LATER, Mode, example=lambda: first("mean"), fresh=lambda: with_("mean", "sum")),
    case(
        LATER,
        Many,
        example=lambda: ([rows(0), rows(1)],),
        fresh=lambda: [([rows(seed)] * (1 + seed % 3),) for seed in range(1, 7)],
    ),
    case(
        LATER,
        Keywords,
        example=lambda: {"x": rows(0), "one": rows(1)},
        fresh=lambda: [{"x": rows(seed), "one": rows(2), "two": rows(3)} for seed in range(6)],
    ),
]
