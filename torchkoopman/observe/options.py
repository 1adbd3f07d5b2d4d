"""Options: the arguments of ``attach`` and of probes, each of the kind that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from torchkoopman.observe.classes import described
from torchkoopman.observe.views import View

_PATTERN = "an einops pattern such as 'b t d -> b t d', or {layer or wildcard: pattern}"
_CHOICE = "a path such as '0.hidden', a function, a view, or {layer or wildcard: one of these}"


def check_options(
    *,
    model: object,
    layout: object,
    output: object,
    when: object,
    positions: Any,
    generator: object,
    attention_mask: object,
    gather: object,
) -> None:
    """Refuse an argument of another kind; see :func:`torchkoopman.attach`.

    Raises:
        TypeError: an argument of another kind.
        ValueError: ``when`` or ``positions`` out of range.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"attach() got a {type(model).__name__} as the model; give an nn.Module.")
    for value in _values(layout):
        if not isinstance(value, str):
            raise TypeError(f"attach() got {value!r} in layout=; give {_PATTERN}.")
    for value in _values(output):
        if not isinstance(value, str | View) and not callable(value):
            raise TypeError(f"attach() got {value!r} in output=; give {_CHOICE}.")
    for name, value in (("attention_mask", attention_mask), ("gather", gather)):
        if not isinstance(value, bool):
            raise TypeError(f"attach() got {name}={value!r}; give True or False.")
    whole = isinstance(positions, Integral) and not isinstance(positions, bool)
    if positions is not None and not whole:
        raise TypeError(f"attach() got positions={positions!r}; give a whole number, or None.")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"attach() got generator={generator!r}; give a torch.Generator, such as "
            "torch.Generator().manual_seed(0)."
        )
    if when not in (None, "always", "train", "eval"):
        raise ValueError(f"attach() got when={when!r}; it takes 'always', 'train' or 'eval'.")
    if positions is not None and positions < 1:
        raise ValueError(
            f"attach() got positions={positions}; give how many positions of each sample to take, "
            "1 or more, or None for all."
        )


def check_mask(mask: object) -> Tensor:
    """Which rows count, if this is a tensor that can say so.

    Raises:
        TypeError: it is none, or has no values, or they are no integers.
    """
    whole = isinstance(mask, Tensor) and not (mask.is_floating_point() or mask.is_complex())
    dense = isinstance(mask, Tensor) and mask.layout == torch.strided and not mask.is_nested
    if not isinstance(mask, Tensor) or not whole or not dense or mask.is_meta:
        raise TypeError(
            f"probe.mask() got {described(mask)}; give an integer or boolean tensor: True or 1 "
            "where a row counts, shape (batch, positions)."
        )
    return mask


def callable_of(listener: Any) -> Callable[[Any], object]:
    """What is called with a trajectory: a listener's ``update``, or itself.

    Raises:
        TypeError: it has neither, or is a class of listeners.
    """
    call = getattr(listener, "update", listener)
    if isinstance(listener, type) and call is not listener:
        raise TypeError(
            f"stream_to() got the class {listener.__name__} itself; make a listener of it: "
            f"{listener.__name__}(...)."
        )
    if not callable(call):
        raise TypeError(
            f"stream_to() got a {type(listener).__name__}; a listener has .update(trajectory) or "
            "is a callable that takes a trajectory."
        )
    return call  # type: ignore[no-any-return]


def _values(option: object) -> list[object]:
    """What an option says, whether for all layers at once or by layer."""
    if isinstance(option, Mapping):
        return list(option.values())
    return [] if option is None else [option]
