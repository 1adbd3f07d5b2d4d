"""An audit's batches: read as a fit reads them, with one class per sample; and parts of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from itertools import compress
from typing import Any

import numpy as np
from torch import Tensor, nn

from torchkoopman.observe.batches import Forward, called, parts, structure_of
from torchkoopman.observe.classes import EXPECTED, classes_of, described
from torchkoopman.observe.interrupts import uninterrupted
from torchkoopman.observe.outputs import choose_tensor
from torchkoopman.observe.watch import moved

Batches = Iterable[Any]
"""Batches with labels, as for :func:`torchkoopman.fit`; may be gone through more than once."""


def labels_of(
    batch: Any, model: nn.Module | None, forward: Forward | None = None, what: str = "batches"
) -> Tensor:
    """The classes of a batch's samples, ``(samples,)``.

    Raises:
        TypeError: it has none, or may be read with and without.
    """
    _, _, target = parts(None if forward else model, batch)
    labels = classes_of(target)
    if labels is None:
        found = "no labels in it" if target is None else f"the labels {described(target)}"
        raise TypeError(
            f"{what}= gave a batch, {structure_of(batch)}, with {found}; an audit needs labels, "
            f"as in (inputs, labels), ((a, b), labels) or a dict with 'labels': {EXPECTED}. Say "
            "how to call the model if something else stands last: forward=lambda model, batch: "
            "model(batch[0])."
        )
    return labels


def chosen(value: Any, kept: Tensor) -> Any:
    """A batch, or part of one, with some of its samples: tensors of as many rows lose rows."""
    if isinstance(value, Tensor):
        return value[kept.to(value.device)] if value.ndim and len(value) == len(kept) else value
    if isinstance(value, np.ndarray):
        return value[kept.numpy(force=True)] if value.ndim and len(value) == len(kept) else value
    if isinstance(value, Mapping):
        return {name: chosen(each, kept) for name, each in value.items()}
    if isinstance(value, list | tuple):
        if len(value) == len(kept) and classes_of(value) is not None:
            return list(compress(value, kept.tolist()))
        parted = [chosen(each, kept) for each in value]
        return type(value)(*parted) if hasattr(value, "_fields") else type(value)(parted)
    return value


def answered(model: nn.Module, batch: Any, forward: Forward | None = None) -> Tensor:
    """The model's logits on a batch, ``(samples, classes)``, whatever ``forward`` returns."""
    said: list[Any] = []
    with ExitStack() as stack:
        with uninterrupted():
            hook = model.register_forward_hook(lambda _, __, output: said.append(output))
            stack.callback(hook.remove)
        if forward is not None:
            forward(model, batch)
        else:
            args, kwargs, _ = parts(model, batch)
            called(model, *moved(model, args, kwargs), batch)
    return choose_tensor(said[-1], None, "the model").flatten(1)
