"""Hostile: models that read the world by names that are not in their code, or by an import."""

from __future__ import annotations

import functools
import importlib
import operator
import sys
from typing import TYPE_CHECKING

from benchmarks.hostile import ambient as world
from benchmarks.hostile.ambient import SETTINGS, Settings, helper, outside

if TYPE_CHECKING:
    from torch import Tensor

NAME = "scale"
GET = operator.attrgetter(NAME)


def by_computed_name(h: Tensor) -> Tensor:
    return h * getattr(SETTINGS, NAME)


def by_spelled_name(h: Tensor) -> Tensor:
    return h * getattr(world, f"{NAME}".upper(), 1.0)


def by_vars(h: Tensor) -> Tensor:
    return h * vars(SETTINGS)[NAME]


def by_attributes_of_an_object(h: Tensor) -> Tensor:
    return h * SETTINGS.__dict__[NAME]


def by_attrgetter(h: Tensor) -> Tensor:
    return h * operator.attrgetter(NAME)(SETTINGS)


def by_a_pattern(h: Tensor) -> Tensor:
    match SETTINGS:
        case Settings(scale=1.0):
            return h
    return h * 2


def by_a_getter(h: Tensor) -> Tensor:
    return h * GET(SETTINGS)


@functools.singledispatch
def dispatched(value: object) -> float:
    """A function by the kind of its argument."""
    return 0.0


@dispatched.register
def _(value: int) -> float:
    return helper() * value


def by_dispatch(h: Tensor) -> Tensor:
    return h * dispatched(1)


def by_evaluation(h: Tensor) -> Tensor:
    return h * eval(f"{helper.__name__}()")


def by_globals(h: Tensor) -> Tensor:
    return h * globals()["SETTINGS"].scale


def by_an_import(h: Tensor) -> Tensor:
    from benchmarks.hostile.ambient import SCALE

    return h * SCALE


def by_a_named_import(h: Tensor) -> Tensor:
    return h * importlib.import_module(world.__name__).SCALE


def by_the_modules_there_are(h: Tensor) -> Tensor:
    return h * sys.modules["benchmarks.hostile.ambient"].SCALE


CASES = [
    *map(
        outside,
        (
            by_computed_name,
            by_spelled_name,
            by_vars,
            by_attributes_of_an_object,
            by_attrgetter,
            by_a_pattern,
            by_a_getter,
            by_dispatch,
            by_evaluation,
            by_globals,
            by_an_import,
            by_a_named_import,
            by_the_modules_there_are,
        ),
    )
]
