"""An even sample of the rows of a stream, with what is made of them while they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torchkoopman.observe.trajectory import Trajectory

K = TypeVar("K")


class EvenRows(Generic[K]):
    """Listens to trajectories and keeps ``count`` rows of them, each with equal probability.

    Each row draws a random key and the smallest keys stay, wherever in the stream they are. The
    other positions of a kept row's sample are there when something is made of it, for observables
    that look along them.

    Args:
        count: rows to keep.
        made: what is kept of the samples of a part of a trajectory, ``(batch, positions, …)`` each.
        generator: draws the rows.
    """

    def __init__(
        self,
        count: int,
        made: Callable[[Trajectory], Mapping[K, Tensor]],
        generator: torch.Generator,
    ) -> None:
        self.count = count
        self._made, self._generator = made, generator
        self._keys = torch.empty(0, dtype=torch.float64)
        self._kept: dict[K, Tensor] = {}

    def update(self, trajectory: Trajectory) -> None:
        """Offer the rows of one trajectory."""
        counted = trajectory.counted().cpu()
        keys = torch.full(counted.shape, torch.inf, dtype=torch.float64)
        drawn = torch.rand(int(counted.sum()), generator=self._generator, dtype=torch.float64)
        keys[counted] = drawn
        everything = torch.cat([self._keys, drawn]).sort().values
        limit = everything[: self.count][-1] if len(everything) else -1
        samples = (keys <= limit).any(1)
        if not samples.any():
            return
        stay = self._keys <= limit
        self._keys = torch.cat([self._keys[stay], keys[samples][keys[samples] <= limit]])
        chosen = (keys <= limit)[samples].to(trajectory.device)
        part = trajectory.select(samples.to(trajectory.device))
        for key, values in self._made(part).items():
            rows = values[chosen]
            old = self._kept.get(key)
            self._kept[key] = rows if old is None else torch.cat([old[stay.to(rows.device)], rows])

    def rows(self) -> dict[K, Tensor]:
        """What is kept, ``(rows, …)``: the same rows in all, shuffled.

        Any first few rows are a random sample too.
        """
        order = self._keys.argsort()
        return {key: rows[order.to(rows.device)] for key, rows in self._kept.items()}
