"""Turns: threads that call one listener, of one probe or of several, call it one after another."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_RLock: Any = type(threading.RLock())  # a listener may run the model itself


class _Turn(_RLock):  # type: ignore[misc]
    """The lock of one object, which it keeps alive, so that no other has the same identity.

    It is taken and given back in one step each, so that an interrupt finds it either way.
    """

    owner: object


_TURNS: WeakValueDictionary[int, _Turn] = WeakValueDictionary()
"""Identity → the turn of an object that some thread is calling, or waits to call."""
_GUARD = threading.RLock()


def turn_of(listener: object) -> AbstractContextManager[object]:
    """Within it no other thread is within it for the same object; of a method that is its own."""
    while isinstance(listener, partial):
        listener = listener.func
    owner = getattr(listener, "__self__", listener)
    with _GUARD:
        turn = _TURNS.get(id(owner))
        if turn is None:
            turn = _Turn()
            turn.owner = owner
            _TURNS[id(owner)] = turn
    return turn
