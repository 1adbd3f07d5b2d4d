"""A bounded sample of everything streamed: what the autoencoder trains on.

Uniform over the stream (Vitter 1985, algorithm R), or with a halflife biased towards the present
(Aggarwal 2006, "On biased reservoir sampling in the presence of stream evolution").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from torchkoopman.fitting.draws import biased_places, latest, merged_share, uniform_places
from torchkoopman.fitting.slots import Slots
from torchkoopman.storage.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Mapping


_FOLD = 5
"""One sample in this many is never trained on; choices between models are made on those."""


class Reservoir(Slots):
    """Reservoir sampling of paths, at most ``max_bytes`` of them.

    A path is one row's states at all layers, in coordinates: ``(layers, coordinates)``. Without a
    halflife every path of the stream is kept with equal probability, at any time. A path is held
    out by its sample's number (see ``identity.py``), so that all of a sample is, in every epoch;
    where no numbers are given, by its place, in which it stays until another takes it.

    With a halflife a path is in the sample with a probability proportional to ``2 ** (-age /
    halflife)``, its age being the number of rows that came after it. A row that takes part draws
    one of ``k`` places and writes over what is there; of all rows the share ``p = k (1 - 2 ** (-1 /
    halflife))`` takes part, so that a path survives each later row with probability ``2 ** (-1 /
    halflife)``, and the probability at age 0 is p. There are ``halflife / log 2`` places (p is then
    almost 1), or as many as memory holds. The first k rows all take part, lest the sample be empty.

    Args:
        max_bytes: memory of paths and labels.
        generator: of the draws.
        halflife: rows after which a path is kept with half the probability; None: all alike.

    Raises:
        ValueError: a halflife that is not a positive number.
    """

    def __init__(
        self, max_bytes: int, generator: torch.Generator, halflife: float | None = None
    ) -> None:
        super().__init__(max_bytes, halflife)
        self.seen = 0
        self._mass = 0.0
        """Sum of the rows' weights; with a halflife only."""
        self.generator = generator

    def __getitem__(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Some of the sample: paths, and their classes, -1 where unknown."""
        paths, labels, _ = self.parts()
        return paths[rows], labels[rows]

    def add(
        self, paths: Tensor, labels: Tensor | None = None, samples: Tensor | None = None
    ) -> Self:
        """Offer paths, ``(rows, layers, coordinates)``, with classes and their samples' numbers."""
        if len(paths) == 0:
            return self
        unknown = torch.full((len(paths),), -1, device=paths.device)
        labels = unknown if labels is None else labels
        samples = unknown if samples is None else samples
        capacity = self._allocate(paths)
        slots = latest(self._drawn(len(paths), capacity), capacity)
        kept = (slots < capacity).nonzero().squeeze(1)
        where = self._lying(slots[kept])
        self._write(where, kept, (paths, labels, samples))
        self.seen += len(paths)
        if self.halflife is not None:
            self._born[where] = self.seen
            self._mass = self._mass * 2 ** (-len(paths) / self.halflife) + len(paths)
        return self

    def emptied(self) -> Reservoir:
        """An empty reservoir like this one, drawing from the same generator."""
        return Reservoir(self.max_bytes, self.generator, self.halflife)

    @property
    def weights(self) -> Tensor | None:
        """The weight of each path in moments of the same halflife, ``(paths,)``; None: all alike.

        As there, rows that came in one batch weigh the same.
        """
        if self.halflife is None:
            return None
        ages = self.seen - self._born[: self._filled]
        return torch.exp2(-ages.double() / self.halflife)

    def state_dict(self) -> dict[str, Any]:
        """The sample and where its draws stand, as tensors and plain types; it is not a copy."""
        parts = self.parts()
        return {
            "seen": self.seen,
            "mass": self._mass,
            "sample": Rows(parts, self._written, self._clock) if parts else [],
            "places": self._places,
            "born": self._born,
            "draws": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go on from what :meth:`state_dict` said; the generator is set to where it stood.

        Raises:
            ValueError: a sample that does not fit this memory; nothing is changed then.
        """
        fresh = self.emptied()
        if state["sample"]:
            paths = state["sample"][0]
            capacity = fresh._allocate(paths)
            if len(paths) > capacity or len(state["places"]) != len(fresh._places):
                raise ValueError(
                    f"a sample of {len(paths)} paths does not fit a reservoir of {capacity}; load "
                    "it into one with the same max_bytes and halflife."
                )
            fresh._filled = len(paths)
            fresh._write(slice(len(paths)), slice(None), state["sample"])
            fresh._places, fresh._born = state["places"].clone(), state["born"].clone()
        fresh.seen, fresh._mass = state["seen"], state["mass"]
        self.generator.set_state(state["draws"])
        vars(self).update(vars(fresh))
        return self

    def merge(self, other: Reservoir) -> Self:
        """Take in another stream's sample, so that this is one of both streams' rows.

        Every row is kept with the probability it would have had in one stream, with a halflife in
        proportion to its weight, as if both streams ended now. Those held out are held out still:
        paths that stay keep their places. All is drawn from this reservoir's generator.

        Raises:
            ValueError: another memory or halflife, paths of another shape, or the same reservoir;
                nothing is changed then.
        """
        limits = [(each.max_bytes, each.halflife) for each in (self, other)]
        shapes = {each._columns[0].shape[1:] for each in (self, other) if each._columns}
        if other is self or limits[0] != limits[1] or len(shapes) > 1:
            raise ValueError(
                "two samples merge if they come from two streams, have the same max_bytes and "
                f"halflife, and hold paths of one shape; these have {limits}, shapes "
                f"{list(map(list, shapes))}."
            )
        theirs = other.parts()
        if not theirs:
            return self
        capacity, before = self._allocate(theirs[0]), self._filled
        size = min(capacity, before + len(other))
        masses = [each.seen if self.halflife is None else each._mass for each in (self, other)]
        counts = before, len(other)
        taken = merged_share((masses[0], masses[1]), counts, size, self.generator)
        leaves = torch.randperm(before, generator=self.generator)[size - taken :]
        where = torch.cat([leaves, torch.arange(before, size)])
        chosen = torch.randperm(len(other), generator=self.generator)[:taken]
        self._filled, self.seen = size, self.seen + other.seen
        self._write(where, chosen, theirs)
        if self.halflife is not None:
            self._mass += other._mass
            self._born[:before] += other.seen
            self._born[where] = other._born[chosen] + (self.seen - other.seen)
            free = (self._places < 0).nonzero().squeeze(1)[: size - before]
            self._places[free] = torch.arange(before, size)
        return self

    def sample(self, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Paths drawn with replacement from those not held out, ``(rows, layers, coordinates)``.

        Drawn by the reservoir's own generator unless another is given.
        """
        if self._training is None:
            self._training = (~self._apart()).nonzero()[:, 0]
        index = torch.randint(len(self._training), (rows,), generator=generator or self.generator)
        return self._columns[0][self._training[index.to(self._training.device)]]

    def trained(self, limit: int) -> Tensor:
        """Paths that batches are drawn from, those among the first ``limit`` places."""
        return self[:limit][0][~self._apart()[:limit]]

    def held_out(self, limit: int) -> Tensor:
        """Paths never trained on, those among the first ``limit`` places."""
        return self[:limit][0][self._apart()[:limit]]

    def judging(self, limit: int) -> tuple[Tensor, Tensor | None]:
        """At most ``limit`` of the paths held out, in whole samples, and their samples' numbers.

        The numbers are None where they are not known.
        """
        if not self._columns:
            return torch.empty(0), None
        where = self._apart().nonzero()[:, 0]
        numbers = self._columns[2][where]
        if (numbers < 0).any():
            return self.held_out(self._filled)[:limit], None
        order = numbers.argsort(stable=True)[:limit]
        return self[:][0][where[order]], numbers[order]

    def _apart(self) -> Tensor:
        """Which paths are held out, ``(paths,)``; none if nothing else is there."""
        numbers = self._columns[2][: self._filled]
        places = torch.arange(self._filled, device=numbers.device)
        apart: Tensor = torch.where(numbers < 0, places, numbers) % _FOLD == _FOLD - 1
        return apart & ~apart.all()

    def _drawn(self, rows: int, capacity: int) -> Tensor:
        """The place each new row draws; ``capacity`` or more means none."""
        if self.halflife is None:
            return uniform_places(self.seen, rows, capacity, self.generator)
        return biased_places(self.seen, rows, capacity, self.halflife, self.generator)
