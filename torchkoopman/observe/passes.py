"""Passes: the forward passes under way, thread by thread, as far as they are really running.

Each thread has a stack of its own, so that no trajectory mixes two of them. An interrupt (Ctrl-C)
leaves modules without telling a hook; whether one is still running is therefore read off Python's
own stack, where each call of a module is a frame.
"""

from __future__ import annotations

import gc
import operator
import sys
from collections import Counter
from dataclasses import dataclass, field
from threading import get_ident
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from torchkoopman.observe.masks import ModelMask
from torchkoopman.observe.shards import Flow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from torchkoopman.observe.capture import PositionSample, Reading
    from torchkoopman.observe.trajectory import InputSpec

_CALL = nn.Module._call_impl.__code__
"""What runs while a module is called, its hooks included."""


@dataclass
class Forward:
    """One forward pass under way, and what was read of it so far."""

    sample: PositionSample
    inputs: tuple[InputSpec, ...]
    mode: str
    """``train`` or ``eval``, that of the outermost module."""
    skip: str | None
    """Why none of its layers shall be read, if so."""
    mask: ModelMask = field(default_factory=ModelMask)
    """The mask among the model's own arguments."""
    flow: Flow = field(default_factory=Flow)
    """What is whole, where processes share the model."""
    calls: Counter[str] = field(default_factory=Counter)
    readings: dict[tuple[str, int], Reading] = field(default_factory=dict)
    skipped: bool = False
    """True once one of its layer calls was not read."""
    broken: bool = False
    """True once an exception passed through a part of it, to be caught further out."""
    around: list[tuple[int, nn.Module]] = field(default_factory=list)
    """The modules around all layers that are running, outermost first, each with its depth."""


def input_specs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[InputSpec, ...]:
    """Shapes and dtypes of the model's arguments, if all its tensors are positional."""
    if not all(isinstance(arg, Tensor) for arg in args):
        return ()
    if any(isinstance(value, Tensor) for value in kwargs.values()):
        return ()
    return tuple((tuple(arg.shape), str(arg.dtype).removeprefix("torch.")) for arg in args)


class Passes:
    """For each thread, the forward passes under way, outermost first; a model may call itself.

    Not safe by itself: whoever calls holds a lock.
    """

    def __init__(self) -> None:
        self._under_way: dict[int, list[Forward]] = {}

    def clear(self) -> None:
        """Forget all of them."""
        self._under_way.clear()

    def current(self) -> Forward | None:
        """The innermost forward pass of this thread."""
        mine = self._under_way.get(get_ident())
        return mine[-1] if mine else None

    def begin(self, forward: Forward) -> None:
        """A forward pass begins within what is running in this thread."""
        self._under_way.setdefault(get_ident(), []).append(forward)

    def knows(self, depth: int, module: nn.Module) -> bool:
        """Whether the call of a module that is now ending in this thread is still among those."""
        forwards = self._under_way.get(get_ident(), [])
        known = sum(depth == each for forward in forwards for each, _ in forward.around)
        return known > 0 and _running([module] * (known + 1), sys._getframe(1)) <= known

    def leave(self, depth: int) -> tuple[Forward, bool] | None:
        """A module around the layers was left in this thread: its pass, and whether that is over.

        None if it was not known to run.
        """
        forward = self.current()
        depths = [] if forward is None else [each for each, _ in forward.around]
        if forward is None or depth not in depths:
            return None
        outermost = depths.index(depth) == 0
        if outermost:  # first, for an interrupt may come between two lines
            self._drop(get_ident())
        del forward.around[depths.index(depth) :]
        return forward, outermost

    def settle(self, entering: nn.Module | None = None) -> int:
        """Give up what is no longer running in this thread; returns how many passes that ends.

        Args:
            entering: a module that is being called, but is not yet among those around. Then the
                passes of threads that have ended are given up too.
        """
        ident = get_ident()
        ended = self._settle(ident, sys._getframe(1), entering)
        if entering is not None and self._under_way.keys() - {ident}:
            ended += sum(self._settle(i, None) for i in self._under_way.keys() - _frames().keys())
        return ended

    def settle_all(self) -> int:
        """The same for all threads."""
        frames = _frames()
        return sum(self._settle(ident, frames.get(ident)) for ident in list(self._under_way))

    def _settle(
        self, ident: int, frame: FrameType | None, entering: nn.Module | None = None
    ) -> int:
        forwards, ended = self._under_way.get(ident, []), 0
        while forwards and not forwards[-1].around:  # an interrupt came amid the lines below
            self._drop(ident)
            ended += 1
        around = [module for forward in forwards for _, module in forward.around]
        if not around:
            return ended
        new = [] if entering is None else [entering]
        # Calls end in the reverse order of their beginning, so those that ended are the last ones.
        gone = len(around) + len(new) - _running([*around, *new], frame)
        while gone > 0 and forwards:
            innermost = forwards[-1]
            kept = max(0, len(innermost.around) - gone)
            gone -= len(innermost.around) - kept
            del innermost.around[kept:]
            innermost.broken = True
            if not kept:
                self._drop(ident)
                ended += 1
        return ended

    def _drop(self, ident: int) -> None:
        forwards = self._under_way[ident]
        forwards.pop()
        if not forwards:
            del self._under_way[ident]


def _frames() -> dict[int, FrameType]:
    """The innermost frame of each thread, by its identity.

    Python 3.11 holds a lock while it makes these frames. Should the garbage collector run amid
    that, and a thread begin or end, each waits for the other for ever (python/cpython#106883). The
    three calls below are one step for all other threads, as no Python code runs between them.
    """
    if not gc.isenabled():
        return sys._current_frames()
    steps: tuple[Callable[[], Any], ...] = (gc.disable, sys._current_frames, gc.enable)
    try:
        frames: dict[int, FrameType] = tuple(map(operator.call, steps))[1]
    finally:
        gc.enable()
    return frames


def _running(modules: Sequence[nn.Module], frame: FrameType | None) -> int:
    """How many calls of these modules are on the stack of a frame; of one it may be several."""
    known, found = {id(module) for module in modules}, 0
    while frame is not None and found < len(modules):
        if frame.f_code is _CALL and id(frame.f_locals["self"]) in known:
            found += 1
        frame = frame.f_back
    return found
