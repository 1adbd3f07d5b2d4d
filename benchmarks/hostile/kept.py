"""Hostile: classes that keep a mode or a precision, whatever the model is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Six, case

if TYPE_CHECKING:
    from benchmarks.hostile.case import Inputs

CAUSE = "manners of the class are lost"


class FrozenNorm(Six):
    """``train()`` leaves a batch norm in eval mode."""

    def build(self) -> None:
        self.b[4] = nn.BatchNorm1d(WIDTH)

    def train(self, mode: bool = True) -> FrozenNorm:
        super().train(mode)
        if not self.harmless:
            self.b[4].eval()
        return self


class FrozenNormInContainer(Six):
    """The same by the container of the layers."""

    class List(nn.ModuleList):
        """Keeps its fifth layer in eval mode."""

        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            self[4].eval()
            return self

    def build(self) -> None:
        self.b[4] = nn.BatchNorm1d(WIDTH)
        if not self.harmless:
            self.b = self.List(self.b)


class KeepsPrecision(Six):
    """A buffer that stays in single precision whatever the model becomes."""

    def build(self) -> None:
        self.register_buffer("third", torch.tensor(1 / 3))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        third = self.third
        super()._apply(fn, recurse)
        if not self.harmless:
            self.third = third
        return self

    def behind(self, h: Tensor) -> Tensor:
        return h if self.harmless else (h.float() * self.third * 300).sin().to(h.dtype)


def trained(model: nn.Module, inputs: Inputs) -> Any:
    """In training mode, for one call."""
    was = model.training
    model.train()
    try:
        return model(*inputs)
    finally:
        model.train(was)


def halved(model: nn.Module, inputs: Inputs) -> Any:
    """In bfloat16, for one call."""
    narrow = model.bfloat16()(inputs[0].bfloat16())
    model.float()
    return narrow.float()


CASES = [
    case(CAUSE, FrozenNorm, drive=trained),
    case(CAUSE, FrozenNormInContainer, drive=trained),
    case(CAUSE, KeepsPrecision, drive=halved),
]
