"""A bounded, uniform sample of everything streamed: what the autoencoder trains on."""

from __future__ import annotations

from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor

_FOLD = 5
"""Every so many-th place holds a path that is never trained on: choices are made on those."""


class Reservoir:
    """Reservoir sampling (Vitter 1985, algorithm R) of paths, at most ``max_bytes`` of them.

    At any time every path of the stream is kept with equal probability. A path is one row's states
    at all layers, in coordinates: ``(layers, coordinates)``. It stays in its place until another
    takes it, so a path in one of every fifth place is held out for as long as it is kept.
    """

    def __init__(self, max_bytes: int, generator: torch.Generator) -> None:
        self.max_bytes = max_bytes
        self.seen = 0
        self._generator = generator
        self._paths: Tensor | None = None
        self._labels: Tensor | None = None
        self._filled = 0

    def __len__(self) -> int:
        return self._filled

    def __getitem__(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Some of the sample: paths, and their classes, -1 where unknown."""
        assert self._paths is not None
        assert self._labels is not None
        return self._paths[: self._filled][rows], self._labels[: self._filled][rows]

    def add(self, paths: Tensor, labels: Tensor | None = None) -> Self:
        """Offer paths, ``(rows, layers, coordinates)``, with their classes."""
        if len(paths) == 0:
            return self
        if labels is None:
            labels = torch.full((len(paths),), -1, device=paths.device)
        capacity = self._allocate(paths)
        slots = self._slots(len(paths), capacity).to(paths.device)
        kept = slots < capacity
        assert self._paths is not None
        assert self._labels is not None
        self._paths[slots[kept]] = paths[kept]
        self._labels[slots[kept]] = labels[kept]
        self.seen += len(paths)
        self._filled = min(self.seen, capacity)
        return self

    def sync(self) -> Self:
        """Share the sample among all processes of ``torch.distributed``, each by its rows seen."""
        if not (dist.is_available() and dist.is_initialized()):
            return self
        mine = (self.seen, None if self._paths is None else self._paths[: self._filled].cpu())
        parts = [mine] * dist.get_world_size()
        dist.all_gather_object(parts, mine)
        known = [(seen, paths) for seen, paths in parts if paths is not None and len(paths)]
        if not known:
            return self
        device = known[0][1].device if self._paths is None else self._paths.device
        capacity = self._allocate(known[0][1].to(device))
        total = sum(seen for seen, _ in known)
        capacity = min(capacity, total, *(len(p) * total // seen for seen, p in known))
        drawn = []
        for seen, paths in known:
            rows = torch.linspace(0, len(paths) - 1, max(1, capacity * seen // total))
            drawn.append(paths[rows.round().long()])
        assert self._paths is not None
        together = torch.cat(drawn)[: len(self._paths)]
        self._paths[: len(together)] = together.to(self._paths)
        self._filled, self.seen = len(together), total
        return self

    def sample(self, rows: int) -> Tensor:
        """Paths drawn with replacement from those not held out, ``(rows, layers, coordinates)``."""
        assert self._paths is not None
        training = self._filled - self._filled // _FOLD
        index = torch.randint(training, (rows,), generator=self._generator)
        index += index // (_FOLD - 1)  # over the places held out
        return self._paths[index.to(self._paths.device)]

    def trained(self, limit: int) -> Tensor:
        """Paths that batches are drawn from, those among the first ``limit`` places."""
        paths, _ = self[:limit]
        return paths[torch.arange(len(paths), device=paths.device) % _FOLD != _FOLD - 1]

    def held_out(self, limit: int) -> Tensor:
        """Paths never trained on, those among the first ``limit`` places."""
        return self[:limit][0][_FOLD - 1 :: _FOLD]

    def _slots(self, rows: int, capacity: int) -> Tensor:
        """Where each new row goes; ``capacity`` or more means nowhere.

        The first rows fill the reservoir in order. Row number t then draws a slot from 0 to t and
        is kept if it lies within. If two of one batch draw the same slot the later one stays.
        """
        order = torch.arange(self.seen, self.seen + rows)
        drawn = (
            torch.rand(rows, generator=self._generator, dtype=torch.float64) * (order + 1)
        ).long()
        slots = torch.where(order < capacity, order, drawn)
        chosen, which = torch.unique(slots, return_inverse=True)
        winner = torch.full_like(chosen, -1).scatter_reduce(0, which, order, "amax")
        return torch.where(winner[which] == order, slots, capacity)

    def _allocate(self, paths: Tensor) -> int:
        """Make room at the first batch; returns how many rows fit."""
        if self._paths is None:
            label = torch.iinfo(torch.long).bits // 8
            row = paths[0].numel() * paths.element_size() + label
            capacity = max(1, self.max_bytes // row)
            self._paths = paths.new_empty(capacity, *paths.shape[1:])
            self._labels = torch.full((capacity,), -1, device=paths.device)
        return len(self._paths)
