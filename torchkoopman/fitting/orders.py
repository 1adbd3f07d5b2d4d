"""Passes over a loader from a position on: batches come in the order in which they would have come.

What cannot be repeated is refused, not guessed. A loader with ``state_dict`` says where it stands;
of a list, or a ``torch.utils.data.DataLoader`` whose order comes from a seeded generator, a pass is
begun again with the same random states, and the batches that were seen are passed over. The last of
those must be the batch that it was; where all passes had ended, the first of the last pass.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from torchkoopman.observe.surroundings import random_states, set_random_states

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_DRAWN = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


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
        self._first = ""
        """A digest of the first batch of the pass; with ``repeatable`` only."""
        self._repeatable = repeatable
        self._begun: dict[str, Any] = {}
        self._resumed: Mapping[str, Any] | None = None
        if repeatable and not self._stateful and (why := _unrepeatable(loader, epochs)):
            raise ValueError(
                f"checkpoint= needs a loader whose order can be repeated, and {why} Or leave "
                "checkpoint= out."
            )

    def __iter__(self) -> Iterator[Any]:
        if self._resumed is not None and self.epoch >= self.epochs:
            self._compare(self._resumed)
            self._set(self._resumed["now"])
        while self.epoch < self.epochs:
            for batch in self._pass():
                if self._repeatable and not self.batch:
                    self._first = _digest(batch)
                self.batch, self.done, self._latest = self.batch + 1, self.done + 1, batch
                yield batch
            self.epoch, self.batch = self.epoch + 1, 0

    def position(self) -> dict[str, Any]:
        """Behind the latest batch, as tensors and plain types.

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
            "now": self._states(),
            "digest": _digest(self._latest),
            "first": self._first,
        }

    @property
    def told_between(self) -> bool:
        """Whether the position is also known where the loader was interrupted."""
        return not self._stateful and self.done > 0

    def go_to(self, position: Mapping[str, Any]) -> None:
        """Let the passes go on behind a batch that was given out before."""
        self.epoch, self.batch, self.done = (position[key] for key in ("epoch", "batch", "done"))
        self._resumed, self._first = position, position.get("first", "")

    def _compare(self, position: Mapping[str, Any]) -> None:
        """See that the loader still begins its last pass as it did when the passes had ended."""
        if not self._stateful:
            self._set(position["begun"])
            _require_same(1, islice(self.loader, 1), position["first"])

    def _pass(self) -> Iterator[Any]:
        """The rest of a pass."""
        position, self._resumed = self._resumed, None
        if position is None:
            self._begun = self._states()
            yield from self.loader
        elif self._stateful:
            self.loader.load_state_dict(position["loader"])  # type: ignore[attr-defined]
            batches = iter(self.loader)
            self._set(position["now"])
            yield from batches
        else:
            self._begun = position["begun"]
            self._set(self._begun)
            batches = iter(self.loader)
            if not self.batch:
                yield from batches
                return
            _require_same(self.batch, islice(batches, self.batch), position["digest"])
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


def described(loader: object) -> dict[str, Any]:
    """What must be the same of a loader for its order to be."""
    told: dict[str, Any] = {"loader": type(loader).__name__}
    if isinstance(loader, list | tuple):
        told["batches"] = len(loader)
    elif isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        told["samples"] = len(loader.dataset)  # type: ignore[arg-type]
        told["batch_size"], told["drop_last"] = loader.batch_size, loader.drop_last
        told["sampler"] = type(loader.sampler).__name__
        told["workers"] = loader.num_workers
    return told


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


def _unrepeatable(loader: object, epochs: int) -> str:
    """Why a loader's order cannot be repeated, and what would help; empty if it can."""
    if isinstance(loader, list | tuple):
        return ""
    if not isinstance(loader, DataLoader) or type(loader).__iter__ is not DataLoader.__iter__:
        return (
            f"that of a {type(loader).__name__} is not known. Give a DataLoader, a list of "
            "batches, or a loader with state_dict() and load_state_dict(), as torchdata's "
            "StatefulDataLoader."
        )
    if isinstance(loader.dataset, IterableDataset):
        return (
            "an IterableDataset may go through its data in any. Give torchdata's "
            "StatefulDataLoader with a data set that has state_dict(), or a map-style data set."
        )
    if not getattr(loader, "in_order", True):
        return "this one has in_order=False. Leave that out."
    if loader.persistent_workers and epochs > 1:
        return (
            "persistent_workers=True carries random states from one pass to the next. Leave it out."
        )
    if loader.batch_sampler is not None and type(loader.batch_sampler) is not BatchSampler:
        return (
            f"that of the batch_sampler {type(loader.batch_sampler).__name__} is not known. Give "
            "torchdata's StatefulDataLoader, or torch's own samplers."
        )
    sampler = loader.sampler
    if isinstance(sampler, _DRAWN) and sampler.generator is None:
        return (
            "this DataLoader shuffles with torch's global random numbers. Give "
            "DataLoader(…, shuffle=True, generator=torch.Generator().manual_seed(0))."
        )
    if type(sampler) not in (*_DRAWN, SequentialSampler, DistributedSampler):
        return (
            f"that of the sampler {type(sampler).__name__} is not known. Give torchdata's "
            "StatefulDataLoader, or one of torch's own samplers."
        )
    return ""


def _generators(loader: object) -> list[torch.Generator]:
    """Where a DataLoader's random numbers come from."""
    parts = loader, getattr(loader, "sampler", None)
    found = [getattr(part, "generator", None) for part in parts]
    return [each for each in found if isinstance(each, torch.Generator)]


def _require_same(number: int, batches: Iterable[Any], digest: str) -> None:
    """Go through batches, of which the one of this number must be the one that the digest is of.

    Raises:
        ValueError: it is another one, or there are fewer.
    """
    found = [_digest(batch) for count, batch in enumerate(batches, 1) if count == number]
    if found != [digest]:
        raise ValueError(
            f"batch {number} of the loader is another one than when the checkpoint was written: it "
            "has fewer batches now, other data, or an order that does not repeat. Give it what it "
            "was made of then, or remove the checkpoint."
        )


def _digest(batch: Any) -> str:
    """A digest of a batch's tensors, and of the rest by how it prints, without addresses."""
    found = hashlib.sha256()
    pending = [batch]
    while pending:
        part = pending.pop()
        if isinstance(part, Mapping):
            pending += [list(part), *part.values()]
        elif isinstance(part, list | tuple):
            pending += part
        elif isinstance(part, Tensor):
            found.update(f"{part.dtype} {tuple(part.shape)}".encode())
            plain = part.detach().cpu().contiguous().flatten()
            found.update(plain.view(torch.uint8).numpy().tobytes())
        else:
            printed = re.sub(r" at 0x[0-9a-f]+", "", str(part))
            found.update(f"{type(part).__name__} {printed}".encode())
    return found.hexdigest()[:16]
