"""Passes over a loader from a position on: batches come in the order in which they would have come.

What cannot be repeated is refused, not guessed. A loader with ``state_dict`` says where it stands;
of a list, or a ``torch.utils.data.DataLoader`` whose order comes from a seeded generator, a pass is
begun again with the same random states, and the batches that were seen are passed over. They must
be those that they were, as far as some numbers of each tell, and the last one and the next in full.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from torchkoopman.observe.randomness import random_states, set_random_states
from torchkoopman.running.batch_digests import digest_of, glimpse_of
from torchkoopman.running.loaders import order_of, unrepeatable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Passes:
    """Batches of so many passes over a loader; iterate once.

    Args:
        loader: batches.
        epochs: passes.
        repeatable: whether :meth:`position` and :meth:`go_to` are wanted.

    Raises:
        ValueError: they are, and the loader's order cannot be repeated; it says what would help.
    """

    def __init__(self, loader: Iterable[Any], epochs: int, repeatable: bool) -> None:
        self.loader = loader
        self.epochs = epochs
        self.epoch = self.batch = 0
        """Where the passes stand: batches of this pass that were given out."""
        self.done = 0
        """Batches given out in all."""
        self._stateful = hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")
        self._latest: Any = None
        self._course = ""
        """A digest of some numbers of each batch of the pass; with ``repeatable`` only."""
        self._repeatable = repeatable
        self._begun: dict[str, Any] = {}
        """Where the random numbers stood when this pass began."""
        self._behind: dict[str, Any] | None = None
        """The same behind the latest batch, while the loader makes the next; None before that."""
        self._resumed: Mapping[str, Any] | None = None
        if repeatable and not self._stateful and (why := unrepeatable(loader, epochs)):
            raise ValueError(
                f"checkpoint= needs a loader whose order can be repeated, and {why} Or leave "
                "checkpoint= out."
            )

    def __iter__(self) -> Iterator[Any]:
        following = "" if self._resumed is None else self._resumed.get("next", "")
        if self._resumed is not None and self.epoch >= self.epochs:
            self._compare(self._resumed)
            self._set(self._resumed["now"])
        if self._resumed is None:
            self._begun = self._states()
        while self.epoch < self.epochs:
            for batch in self._pass():
                if following and following != digest_of(batch):
                    raise ValueError(_another(self.batch + 1))
                following = ""
                self._note(batch)
                self.batch, self.done, self._latest = self.batch + 1, self.done + 1, batch
                self._behind = None
                yield batch
                self._behind = self._states() if self._repeatable else None
            # All at once, so that an interrupt leaves the position of one pass or of the next.
            behind = self._states() if self.epoch + 1 < self.epochs else None
            begun = self._begun if behind is None else behind
            self.epoch, self.batch, self._begun, self._behind = self.epoch + 1, 0, begun, behind

    def position(self) -> dict[str, Any]:
        """The state after the latest batch, as tensors and plain types.

        Raises:
            ValueError: the loader's own state holds anything else.
        """
        position = {"epoch": self.epoch, "batch": self.batch, "done": self.done}
        if self._stateful:
            state = self.loader.state_dict()  # type: ignore[attr-defined]
            require_plain(state, f"the state_dict of {type(self.loader).__name__}")
            return {**position, "loader": state, "now": self._states()}
        return {
            **position,
            "begun": self._begun,
            "now": self._behind or self._states(),
            "digest": digest_of(self._latest),
            "course": self._course,
        }

    @property
    def told_ahead(self) -> bool:
        """Whether the position behind a batch is of use when the next one is there already."""
        return not self._stateful or self.batch > 1

    @property
    def told_between(self) -> bool:
        """Whether the position is also known where the loader was interrupted."""
        return not self._stateful and self.done > 0

    def go_to(self, position: Mapping[str, Any]) -> None:
        """Let the passes go on behind a batch that was given out before."""
        self.epoch, self.batch, self.done = (position[key] for key in ("epoch", "batch", "done"))
        self._resumed, self._begun = position, position.get("begun", {})

    def _compare(self, position: Mapping[str, Any]) -> None:
        """See that the last pass is what it was when the passes had ended."""
        if not self._stateful:
            self._set(position["begun"])
            self._pass_over(self.loader, position)

    def _note(self, batch: Any) -> None:
        """Take a batch into the course of the pass."""
        if self._repeatable:
            before = self._course if self.batch else ""
            self._course = hashlib.sha256(f"{before} {glimpse_of(batch)}".encode()).hexdigest()

    def _pass_over(self, batches: Iterable[Any], position: Mapping[str, Any]) -> None:
        """Go through batches that were seen.

        Raises:
            ValueError: they are others now.
        """
        latest, number, self.batch = None, self.batch, 0
        for batch in batches:
            self._note(batch)
            self.batch, latest = self.batch + 1, batch
        self._latest = latest
        found = {"course": self._course, "digest": digest_of(latest)}
        if any(value != position[name] for name, value in found.items()):
            raise ValueError(_another(self.batch))
        self.batch = number

    def _pass(self) -> Iterator[Any]:
        """The rest of a pass."""
        position, self._resumed = self._resumed, None
        if position is None:
            yield from self.loader
        elif self._stateful:
            self.loader.load_state_dict(position["loader"])  # type: ignore[attr-defined]
            batches = iter(self.loader)
            self._set(position["now"])
            yield from batches
        else:
            self._set(self._begun)
            batches = iter(self.loader)
            if not self.batch:
                yield from batches
                return
            self._pass_over(islice(batches, self.batch), position)
            self._set(position["now"])
            yield from batches

    def _states(self) -> dict[str, Any]:
        """Where the global random numbers stand, and the loader's own."""
        python, numpy, cpu, cuda = random_states()
        kind, key, *rest = numpy
        return {
            "python": python,
            "numpy": [kind, torch.from_numpy(np.asarray(key).astype(np.int64)), *rest],
            "torch": [cpu, cuda],
            "loader": [each.get_state() for each in _generators(self.loader)],
        }

    def _set(self, states: Mapping[str, Any]) -> None:
        kind, key, *rest = states["numpy"]
        numpy = (kind, key.numpy().astype(np.uint32), *rest)
        set_random_states((states["python"], numpy, *states["torch"]))
        for generator, state in zip(_generators(self.loader), states["loader"], strict=True):
            generator.set_state(state)


def require_plain(state: Any, whose: str) -> None:
    """Refuse what ``torch.load(…, weights_only=True)`` would not read.

    Raises:
        ValueError: names the type.
    """
    if isinstance(state, Mapping):
        state = [*state, *state.values()]
    if isinstance(state, list | tuple):
        for each in state:
            require_plain(each, whose)
    elif not isinstance(state, Tensor | str | bytes | int | float | bool | type(None)):
        raise ValueError(
            f"{whose} holds a {type(state).__name__}; a checkpoint holds tensors, numbers, strings "
            "and lists or dictionaries of them, so that reading it runs no code."
        )


def _generators(loader: object) -> list[torch.Generator]:
    """Where a DataLoader's random numbers come from."""
    parts = (loader, order_of(loader)) if isinstance(loader, DataLoader) else (loader,)
    found = [getattr(part, "generator", None) for part in parts]
    return [each for each in found if isinstance(each, torch.Generator)]


def _another(number: int) -> str:
    return (
        f"batch {number} of the loader, or one before it, is another one than when the checkpoint "
        "was written: it has fewer batches now, other data, or an order that does not repeat. Give "
        "it what it was made of then, or remove the checkpoint."
    )
