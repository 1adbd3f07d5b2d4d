"""Alone: passes that a fit or an evaluation runs itself are read by its own probe, and no others.

Hooks are on modules, so every probe of a model is told of every call, whoever makes it: held-out
data of an evaluation would stream into the fitter of a probe that is on, and two fits in two
threads into one another.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


class _Running(threading.local):
    """Of each thread what its passes are run for; None if they are the user's own."""

    reader: object | None = None


_RUNNING = _Running()
_EVALUATING: WeakKeyDictionary[nn.Module, tuple[int, bool]] = WeakKeyDictionary()
"""Module → how many runs hold it in evaluation mode, and the mode to come back."""
_GUARD = threading.RLock()


@contextmanager
def run_for(reader: object) -> Iterator[None]:
    """Within it the passes of this thread are run for ``reader`` alone."""
    before = _RUNNING.reader
    try:
        _RUNNING.reader = reader
        yield
    finally:
        _RUNNING.reader = before


def run_for_another(reader: object, alone: bool) -> bool:
    """Whether a pass that begins in this thread is not for ``reader``.

    Args:
        reader: who asks.
        alone: whether it reads only what is run for it.
    """
    whose = _RUNNING.reader
    return whose is not reader if alone else whose is not None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it a model is in evaluation mode; the last to leave gives its modules their modes.

    It is told by ``eval()``, and by ``train()`` if it was in training, for these may do more.
    """
    modules = list(model.modules())
    held: list[nn.Module] = []
    try:
        with _GUARD:
            for module in modules:
                count, training = _EVALUATING.get(module, (0, module.training))
                _EVALUATING[module] = count + 1, training
                held.append(module)
            model.eval()
        yield
    finally:
        with _GUARD:
            before = {module: _EVALUATING.pop(module) for module in held}
            if before.get(model) == (1, True):
                model.train()
            for module, (count, training) in before.items():
                module.training = training and count == 1
                if count > 1:
                    _EVALUATING[module] = count - 1, training
