"""Hostile: models that read what is outside of them, and it changes after the swap."""

from __future__ import annotations

import contextlib
import os
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Case, Six, seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.hostile.case import Inputs

CAUSE = "the world changes after the swap"
VARIABLE = "TORCHKOOPMAN_HOSTILE"
FACTOR: ContextVar[float] = ContextVar("FACTOR", default=1.0)
SCALE = 1.0
TABLE = {"scale": 1.0}
LIST = [1.0]


@dataclass
class Settings:
    """Read by models, and nobody's attribute."""

    scale: float = 1.0


SETTINGS = Settings()


def helper() -> float:
    """Reads a global variable on behalf of a forward."""
    return SCALE


def scaled(h: Tensor, amount: float = 1.0) -> Tensor:
    """A function whose default may change."""
    return h * amount


def by_global(h: Tensor) -> Tensor:
    return h * SCALE


def by_function(h: Tensor) -> Tensor:
    return h * helper()


def by_dictionary(h: Tensor) -> Tensor:
    return h * TABLE["scale"]


def by_list(h: Tensor) -> Tensor:
    return h * LIST[0]


def by_object(h: Tensor) -> Tensor:
    return h * SETTINGS.scale


def by_default(h: Tensor) -> Tensor:
    return scaled(h)


def by_environment(h: Tensor) -> Tensor:
    return h * float(os.environ.get(VARIABLE, "1"))


def by_context_variable(h: Tensor) -> Tensor:
    return h * FACTOR.get()


def by_clock(h: Tensor) -> Tensor:
    return h * (2.0 if time.time() > 4e9 else 1.0)


def by_inference_mode(h: Tensor) -> Tensor:
    return h * 2 if torch.is_inference_mode_enabled() else h


def by_grad_mode(h: Tensor) -> Tensor:
    return h if torch.is_grad_enabled() else h * 2


def by_autocast(h: Tensor) -> Tensor:
    return h * 2 if torch.is_autocast_enabled("cpu") else h


def by_default_precision(h: Tensor) -> Tensor:
    return h * (torch.ones(WIDTH).element_size() / 4)


class Reading(nn.Module):
    """A layer that reads by itself what is outside of it."""

    def __init__(self, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.read = read

    def forward(self, h: Tensor) -> Tensor:
        return self.read(h)


class Outside(Six):
    """The model itself reads it, behind the span."""

    read: Callable[[Tensor], Tensor]

    def behind(self, h: Tensor) -> Tensor:
        return type(self).read(h)


@contextlib.contextmanager
def globally(value: float) -> Iterator[None]:
    """Everything that the models above read is another value."""
    global SCALE
    SCALE = TABLE["scale"] = LIST[0] = SETTINGS.scale = value
    scaled.__defaults__ = (value,)
    os.environ[VARIABLE] = str(value)
    token, clock = FACTOR.set(value), time.time
    time.time = lambda: 5e9
    try:
        yield
    finally:
        SCALE = TABLE["scale"] = LIST[0] = SETTINGS.scale = 1.0
        scaled.__defaults__ = (1.0,)
        del os.environ[VARIABLE]
        FACTOR.reset(token)
        time.time = clock


def changed(model: nn.Module, inputs: Inputs) -> Any:
    """A call in another world."""
    with globally(3.0):
        return model(*inputs)


def inferred(model: nn.Module, inputs: Inputs) -> Any:
    """A call in inference mode."""
    with torch.inference_mode():
        found = model(*(each.detach() for each in inputs))
    return found.clone()


def ungraded(model: nn.Module, inputs: Inputs) -> Any:
    """A call without gradients."""
    with torch.no_grad():
        return model(*inputs)


def autocast(model: nn.Module, inputs: Inputs) -> Any:
    """A call under autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        return model(*inputs).float()


def other_default(model: nn.Module, inputs: Inputs) -> Any:
    """A call where numbers are double by default."""
    torch.set_default_dtype(torch.float64)
    try:
        return model(*inputs)
    finally:
        torch.set_default_dtype(torch.float32)


def outside(read: Callable[[Tensor], Tensor], drive: Callable[..., Any] = changed) -> Case:
    """Read by the model itself; in the twin by a layer behind the span."""

    def make() -> nn.Module:
        return type("Outside", (Outside,), {"read": staticmethod(read)})()

    def twin() -> nn.Module:
        model = Six()
        model.b[4] = Reading(read)
        return model

    name = f"read {read.__name__.replace('_', ' ')}"
    return Case(name, CAUSE, seeded(make), seeded(twin), drive=drive)


CASES = [
    *map(
        outside,
        (
            by_global,
            by_function,
            by_dictionary,
            by_list,
            by_object,
            by_default,
            by_environment,
            by_context_variable,
            by_clock,
        ),
    ),
    outside(by_inference_mode, inferred),
    outside(by_grad_mode, ungraded),
    outside(by_autocast, autocast),
    outside(by_default_precision, other_default),
]
