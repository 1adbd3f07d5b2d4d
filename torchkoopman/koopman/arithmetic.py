"""Looks are computed in their tensors' own precision, whatever context the user is in."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


def own_precision(method: Callable[P, T]) -> Callable[P, T]:
    """The method without gradients and without autocast, which would round to eight bits."""

    @wraps(method)
    def computed(*args: P.args, **kwargs: P.kwargs) -> T:
        off = (torch.autocast(device, enabled=False) for device in ("cpu", "cuda"))
        with torch.no_grad(), next(off), next(off):
            return method(*args, **kwargs)

    return computed
