"""Passages: one call of an edited model on its way through the stand-ins, checked step by step.

Stand-ins were proven on the path that the example took. A model may take another on other data:
skip a layer, call one twice, use a value inside the span elsewhere. Stand-ins would then be wrong,
so they raise an error instead.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchkoopman.observe.capture import is_recomputing, is_traced, is_tracing
from torchkoopman.observe.names import named_module, split_call
from torchkoopman.observe.places import leaves, read
from torchkoopman.observe.selection import common_ancestors
from torchkoopman.surgery.sealed import ADVICE, OffThePath, Sealed, sealed, unsealed

if TYPE_CHECKING:
    from torchkoopman.observe.places import Place


class Passage:
    """How far the calls of one edited model have come, in each thread."""

    def __init__(self, start: str, names: tuple[str, ...], place: Place = ()) -> None:
        self.start, self.names, self.place = start, names, place
        self._local = threading.local()
        self.turn = 0
        """The number of the stand-in to be called next, from 1, in compiled code, which has neither
        threads nor identities."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Passage, (self.start, self.names, self.place)

    @property
    def _now(self) -> Progress:
        """Progress of this thread's call."""
        if not hasattr(self._local, "now"):
            self._local.now = Progress()
        now: Progress = self._local.now
        return now

    def enter(self, name: str) -> None:
        """A module around all stand-ins is about to run."""
        now = self._now
        if name in now.around:  # left without a word, as KeyboardInterrupt does
            self.clear()
            now = self._now
        now.around.append(name)

    def leave(self, name: str, output: Any) -> None:
        """A module returned; when the outermost one did, the call is over.

        Raises:
            OffThePath: some of the stand-ins were called, and not all, or what it returned holds a
                state between two of them.
        """
        now = self._now
        inner = [leaf for _, leaf in leaves(output) if isinstance(leaf, Sealed)]
        if now.around[:1] == [name] and inner:
            raise OffThePath(
                f"the model returns the output of layer {inner[0].layer!r}, but that layer is "
                f"within a span that was replaced as a whole, so there is no such value. {ADVICE}"
            )
        if now.around[:1] == [name] and 0 < now.steps < len(self.names):
            done, next_one = self.names[now.steps - 1 : now.steps + 1]
            raise OffThePath(
                f"the call ended after {done!r}, and {next_one!r} was not called: the layers from "
                f"{self.start!r} to {self.names[-1]!r} are replaced as a whole. {ADVICE}"
            )

    def exit(self, name: str) -> None:
        """A module returned or raised."""
        now = self._now
        if name in now.around:
            del now.around[now.around.index(name) :]
        if not now.around:
            self.clear()

    def clear(self) -> None:
        """Forget the call under way."""
        self._local.now = Progress()

    def depart(self, output: Any) -> None:
        """The layer ``start`` returned."""
        now = self._now
        if not now.around:
            return
        call = split_call(self.start)[1]
        now.departures += 1
        if call is None and now.departures > 1:
            raise OffThePath(
                f"layer {self.start!r}, at which a replaced span begins, was called twice in one "
                f"forward pass. {ADVICE}"
            )
        if now.departures == (call or 0) + 1:
            now.made = Made(read(output, self.place))

    def step(self, index: int, state: Tensor) -> Tensor:
        """The state that a stand-in was given, readable again.

        Raises:
            OffThePath: it is not this stand-in's turn, or the state is another.
        """
        if torch.compiler.is_compiling():
            self._take_turn(index)
            return state
        plain = unsealed(state)
        now = self._now
        if not now.around and self.turn:  # a part that is not compiled, of a model that is
            self._take_turn(index)
        if not now.around or not _is_checked(plain):
            return plain
        name = self.names[index]
        before = self.names[index - 1] if index else self.start
        if now.made is None:
            raise OffThePath(f"layer {name!r} was called before {self.start!r} was. {ADVICE}")
        if now.steps != index:
            expected = self.names[now.steps] if now.steps < len(self.names) else "none of them"
            raise OffThePath(
                f"layer {name!r} was called when it was the turn of {expected!r}: the layers from "
                f"{self.start!r} to {self.names[-1]!r} are replaced as a whole. {ADVICE}"
            )
        if not now.made.is_same(plain):
            raise OffThePath(
                f"layer {name!r} was given another state than {before!r} returned, or one that was "
                f"written into since. {ADVICE}"
            )
        return plain

    def made(self, index: int, state: Tensor) -> Tensor:
        """What a stand-in returns: between two of them nobody can read it."""
        if torch.compiler.is_compiling() or not self._now.around or not _is_checked(state):
            return state
        now = self._now
        now.steps = index + 1
        now.made = Made(state)
        last = index == len(self.names) - 1
        return state if last else sealed(state, self.names[index])

    def follow(self, event: str, name: str) -> None:
        """What is checked in compiled code: that stand-ins are called in order, and all of them.

        Raises:
            OffThePath: they were not.
        """
        if event == "enter" and not name:
            self.turn = 0
        elif event == "depart":
            self.turn = 1
        elif event == "leave" and not name:
            turn, self.turn = self.turn, 0
            if 1 < turn <= len(self.names):
                raise OffThePath(f"{self.names[-1]!r} was not called. {ADVICE}")

    def _take_turn(self, index: int) -> None:
        if self.turn == 0 and torch.compiler.is_exporting():
            return
        if self.turn != index + 1:
            raise OffThePath(f"layer {self.names[index]!r} was called out of turn. {ADVICE}")
        self.turn = index + 2


class Progress:
    """One call under way."""

    def __init__(self) -> None:
        self.around: list[str] = []
        """The modules around all stand-ins that are running, outermost first."""
        self.departures = 0
        self.steps = 0
        """How many stand-ins were called."""
        self.made: Made | None = None
        """What the next one must be given."""


class Made:
    """A state, to know it again: the same memory, unwritten."""

    def __init__(self, state: Tensor) -> None:
        self.state = state
        self.version = None if state.is_inference() else state._version
        self.copy = state.clone() if state.is_inference() else None

    def is_same(self, state: Tensor) -> bool:
        """Whether a tensor is this state, or a view of all of it."""
        same = (
            state.untyped_storage().data_ptr() == self.state.untyped_storage().data_ptr()
            and state.storage_offset() == self.state.storage_offset()
            and (state.shape, state.stride()) == (self.state.shape, self.state.stride())
        )
        if not same or self.copy is not None:
            return same and self.copy is not None and torch.equal(state, self.copy)
        return state.is_inference() or state._version == self.version


def guard(model: nn.Module, start: str, place: Place, names: tuple[str, ...]) -> Passage:
    """Hooks that follow the calls of a model through the layers that stand-ins replace."""
    passage = Passage(start, names, place)
    for name in common_ancestors([split_call(start)[0], *names]):
        around = model.get_submodule(name)
        around.register_forward_pre_hook(Follow(passage, "enter", name), prepend=True)
        around.register_forward_hook(Follow(passage, "leave", name))
        around.register_forward_hook(Follow(passage, "exit", name), always_call=True)
    named_module(model, start).register_forward_hook(Follow(passage, "depart", ""))
    return passage


class Follow:
    """A hook that tells a passage of one kind of event."""

    may_be_lost = True
    """A graph of the model need not call it: it takes one path only."""

    def __init__(self, passage: Passage, event: str, name: str) -> None:
        self.passage, self.event, self.name = passage, event, name

    def __call__(self, module: nn.Module, args: Any, output: Any = None) -> None:
        """Tell it, if the model really runs, and for the first time."""
        if torch.compiler.is_compiling():
            self.passage.follow(self.event, self.name)
            return
        if is_recomputing() or is_tracing():
            return
        if self.event == "depart":
            self.passage.depart(output)
        elif self.event == "leave":
            self.passage.leave(self.name, output)
        else:
            getattr(self.passage, self.event)(self.name)


def _is_checked(state: Tensor) -> bool:
    """Whether a call is checked: not where a program is recorded or run a second time."""
    return not (is_recomputing() or is_tracing() or is_traced(state))
