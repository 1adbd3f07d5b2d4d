"""Looks are computed in their tensors' own precision, whatever context the user is in."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


def without_autocast(method: Callable[P, T]) -> Callable[P, T]:
    """The method out of autocast, which would round its products to eight bits."""

    @wraps(method)
    def computed(*args: P.args, **kwargs: P.kwargs) -> T:
        off = (torch.autocast(device, enabled=False) for device in ("cpu", "cuda"))
        with next(off), next(off):
            return method(*args, **kwargs)

    return computed


def own_precision(method: Callable[P, T]) -> Callable[P, T]:
    """The method without gradients and out of autocast."""
    return torch.no_grad()(without_autocast(method))
