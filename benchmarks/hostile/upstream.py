"""Hostile: what happens before the span, outside of any layer's own forward, gets lost."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.hostile.case import Inputs, Six, case, layer, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

LOST = "upstream is lost"
AUTOCAST = "autocast is lost"


class RootPreHook(Six):
    """A pre-hook on the model changes its input."""

    def build(self) -> None:
        self.register_forward_pre_hook(
            lambda module, given: None if module.harmless else (given[0] * 3 + 1,)
        )


class RootHook(Six):
    """A hook on the model changes its output."""

    def build(self) -> None:
        self.register_forward_hook(
            lambda module, given, out: None if module.harmless else out * 3 + 1
        )


class AlwaysCalledHook(Six):
    """As before, called also when the forward fails."""

    def build(self) -> None:
        self.register_forward_hook(
            lambda module, given, out: None if module.harmless else out + 1, always_call=True
        )


class KeywordPreHook(Six):
    """A pre-hook that sees keyword arguments adds one."""

    def build(self) -> None:
        self.register_forward_pre_hook(
            lambda module, given, named: None if module.harmless else (given, {"scale": 3.0}),
            with_kwargs=True,
        )

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return super().forward(x * scale)


class KeywordHook(Six):
    """A hook that sees keyword arguments changes the output."""

    def build(self) -> None:
        self.register_forward_hook(
            lambda module, given, named, out: None if module.harmless else out * named["scale"],
            with_kwargs=True,
        )

    def forward(self, x: Tensor, scale: float) -> Tensor:
        return super().forward(x * scale)


class SequentialPreHook(nn.Sequential):
    """A pre-hook on a plain sequence of layers."""

    def __init__(self, harmless: bool = False) -> None:
        super().__init__(*(layer() for _ in range(6)))
        self.register_forward_pre_hook(
            lambda _, given: None if harmless else (given[0] * 3 + 1,),
        )


class Encoder(Six):
    """The first layers are a container of their own."""

    def build(self) -> None:
        self.encoder = nn.Sequential(layer(), layer())

    def before(self, h: Tensor) -> Tensor:
        return self.encoder(h)


class ContainerPreHook(Encoder):
    """A pre-hook on a container before the span."""

    def build(self) -> None:
        super().build()
        harmless = self.harmless
        self.encoder.register_forward_pre_hook(
            lambda _, given: None if harmless else (given[0] * 3,)
        )


class ContainerHook(Encoder):
    """A hook on a container before the span."""

    def build(self) -> None:
        super().build()
        harmless = self.harmless
        self.encoder.register_forward_hook(lambda _, given, out: None if harmless else out - 1)


class ContainerBackwardHook(Encoder):
    """A backward hook on a container before the span scales gradients."""

    def build(self) -> None:
        super().build()
        harmless = self.harmless
        self.encoder.register_full_backward_hook(
            lambda _, inner, outer: None if harmless else (inner[0] * 0.1,)
        )


class RootBackwardPreHook(Six):
    """A backward pre-hook on the model scales gradients."""

    def build(self) -> None:
        self.register_full_backward_pre_hook(
            lambda module, outer: None if module.harmless else (outer[0] * 0.1,)
        )


class TensorHook(Six):
    """A hook on a tensor before the span scales its gradient."""

    def before(self, h: Tensor) -> Tensor:
        if h.requires_grad:
            h.register_hook(lambda slope: None if self.harmless else slope * 0.1)
        return h


class GlobalHook(Six):
    """A hook on all modules, registered outside the model, changes what ``Tanh`` returns."""


class Autocast(Six):
    """Layers in half precision."""

    def context(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=not self.harmless)


class AutocastBefore(Autocast):
    """A layer before the span runs in half precision."""

    def before(self, h: Tensor) -> Tensor:
        with self.context():
            return self.b[0](h).float()


class AutocastAroundEnd(Autocast):
    """The last layers of the span run in half precision, so what is put in does too."""

    def span(self, h: Tensor) -> Tensor:
        with self.context():
            return self.b[3](self.b[2](h)).float()


class AutocastBehind(Autocast):
    """A layer behind the span runs in half precision."""

    def behind(self, h: Tensor) -> Tensor:
        with self.context():
            return self.b[4](h).float()


class AutocastWhole(Autocast):
    """The whole forward runs in half precision."""

    def forward(self, x: Tensor) -> Tensor:
        with self.context():
            return super().forward(x).float()


@contextlib.contextmanager
def global_hook() -> Iterator[None]:
    """A hook on all modules, for a while."""
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, given, out: out * 0.5 if isinstance(module, nn.Tanh) else None
    )
    try:
        yield
    finally:
        handle.remove()


def scaled() -> list[Inputs]:
    """Keyword arguments."""
    return [{"x": rows(seed), "scale": seed + 0.5} for seed in range(1, 7)]


CASES = [
    case(LOST, RootPreHook),
    case(LOST, RootHook),
    case(LOST, AlwaysCalledHook),
    case(LOST, KeywordPreHook),
    case(LOST, KeywordHook, example=lambda: {"x": rows(0), "scale": 2.0}, fresh=scaled),
    case(LOST, SequentialPreHook, start="1", end="3"),
    case(LOST, ContainerPreHook),
    case(LOST, ContainerHook),
    case(LOST, ContainerBackwardHook),
    case(LOST, RootBackwardPreHook),
    case(LOST, TensorHook),
    case(LOST, GlobalHook, twin=False, around=global_hook),
    case(AUTOCAST, AutocastBefore),
    case(AUTOCAST, AutocastAroundEnd),
    case(AUTOCAST, AutocastBehind),
    case(AUTOCAST, AutocastWhole),
]
