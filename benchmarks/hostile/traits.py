"""Hostile: what runs depends on what an input is: its strides, kind, size or rank."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.hostile.case import Six, case

CAUSE = "unusual kinds of values"


class ByStride(Six):
    """Rows that lie apart in memory are scaled."""

    def before(self, h: Tensor) -> Tensor:
        return h

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out if x.is_contiguous() else out * 2


class ByKind(Six):
    """Parameters as inputs are scaled."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out * 2 if isinstance(x, nn.Parameter) else out


class BySize(Six):
    """Large batches are scaled."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out * 2 if len(x) > 7 else out


class ByRank(Six):
    """Sequences are scaled."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out * 2 if x.dim() > 2 else out


def transposed(model: nn.Module, inputs: Any) -> Any:
    """Rows lie apart in memory."""
    return model(*(each.t().contiguous().t() for each in inputs))


def parameters(model: nn.Module, inputs: Any) -> Any:
    """The inputs are parameters."""
    return model(*(nn.Parameter(each.detach()) for each in inputs))


def large(model: nn.Module, inputs: Any) -> Any:
    """A batch of twice the size."""
    return model(*(torch.cat((each, each)) for each in inputs))


def sequences(model: nn.Module, inputs: Any) -> Any:
    """One more axis."""
    return model(*(each[None] for each in inputs))


CASES = [
    case(CAUSE, ByStride, twin=False, drive=transposed),
    case(CAUSE, ByKind, twin=False, drive=parameters),
    case(CAUSE, BySize, twin=False, drive=large),
    case(CAUSE, ByRank, twin=False, drive=sequences),
]
