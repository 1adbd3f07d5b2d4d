"""Turns: threads that call one listener, of one probe or of several, call it one after another."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Turn:
    """The lock of one object, which it keeps alive, so that no other has the same identity."""

    def __init__(self, owner: object) -> None:
        self.owner = owner
        self.lock = threading.RLock()  # a listener may run the model itself


_TURNS: WeakValueDictionary[int, _Turn] = WeakValueDictionary()
"""Identity → the turn of an object that some thread is calling, or waits to call."""
_GUARD = threading.RLock()


@contextmanager
def turn_of(listener: object) -> Iterator[None]:
    """Within it no other thread is within it for the same object; of a method that is its own."""
    while isinstance(listener, partial):
        listener = listener.func
    owner = getattr(listener, "__self__", listener)
    with _GUARD:
        turn = _TURNS.get(id(owner))
        if turn is None:
            turn = _TURNS[id(owner)] = _Turn(owner)
    with turn.lock:
        yield
