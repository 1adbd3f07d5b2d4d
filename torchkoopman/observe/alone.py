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

from torchkoopman.observe.interrupts import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


class _Running(threading.local):
    """For each thread, the run that its passes belong to; None if they are the user's own."""

    run: object | None = None


_RUNNING = _Running()
_EVALUATING: WeakKeyDictionary[nn.Module, tuple[int, bool]] = WeakKeyDictionary()
"""Module → how many runs hold it in evaluation mode, and the mode to come back."""
_GUARD = threading.RLock()


@contextmanager
def within(run: object) -> Iterator[None]:
    """Within it the passes of this thread belong to ``run``, and so do the probes made there."""
    before = _RUNNING.run
    try:
        _RUNNING.run = run
        yield
    finally:
        _RUNNING.run = before


def current_run() -> object | None:
    """The run that a pass which begins in this thread belongs to."""
    return _RUNNING.run


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it a model is in evaluation mode; the last to leave gives its modules their modes.

    It is told by ``eval()``, and by ``train()`` if it was in training, for these may do more.
    """
    modules = list(model.modules())
    held: list[nn.Module] = []
    try:
        with uninterrupted(), _GUARD:
            for module in modules:
                count, training = _EVALUATING.get(module, (0, module.training))
                _EVALUATING[module] = count + 1, training
                held.append(module)
            model.eval()
        yield
    finally:
        with uninterrupted(), _GUARD:
            before = {module: _EVALUATING.pop(module) for module in held}
            try:
                if before.get(model) == (1, True) and len(held) == len(modules):
                    model.train()
            finally:  # the user's own train() may fail
                for module, (count, training) in before.items():
                    module.training = training and count == 1
                    if count > 1:
                        _EVALUATING[module] = count - 1, training
