"""What listens to the one pass: moments of all layers, and rows that no fit sees."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchkoopman.fitting.dmd import DMDFitter
from torchkoopman.running.span_statistics import SpanStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torchkoopman.observe.trajectory import Trajectory

_HELD_OUT = 10
"""One sample in so many is kept out of the fits."""
_MOST_ROWS = 2000
"""Rows that are kept of those samples, by which surrogates are judged."""
_BYTES = 64 * 2**20
"""Memory of these rows."""


def memory_of(widths: Sequence[int]) -> int:
    """Bytes of the moments that are kept of layers of these widths."""
    squares = sum(width**2 for width in widths)
    pairs = (sum(widths) ** 2 - squares) // 2
    return 16 * (2 * squares + pairs) + 8 * 5 * squares


class Gathering:
    """Passes every row on to what is measured, and keeps some out of the surrogates' fit.

    R² of spans comes from :class:`SpanStatistics`, where each half of the batches is predicted by
    the fit of the other; surrogates are fitted without every tenth sample.

    Args:
        widths: of the layers.
        rank: directions kept of each layer in the surrogates.
        rows: after which no further batch is taken; None for all.
        generator: draws the rows that are kept.
    """

    contextual = False

    def __init__(
        self, widths: Sequence[int], rank: int, rows: int | None, generator: torch.Generator
    ) -> None:
        self.generator = generator
        self.statistics = SpanStatistics()
        self.fitter = DMDFitter(rank)
        self.unseen = Unseen(min(_MOST_ROWS, _BYTES // (4 * sum(widths))), generator)
        self.ended_early = False
        """Whether batches were left, or may have been."""
        self._most = rows
        self._samples = 0

    @property
    def rows(self) -> int:
        """Rows until now."""
        return self.statistics.rows

    def batches(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Pass batches on until there were rows enough."""
        for batch in self.statistics.split(batches):
            yield batch
            if self._most is not None and self.rows >= self._most:
                self.ended_early = True
                return

    def update(self, trajectory: Trajectory) -> None:
        """Take in one trajectory."""
        trajectory = replace(trajectory, labels=None)  # moments by class would be kept as well
        self.statistics.update(trajectory)
        number = self._samples + torch.arange(trajectory.batch)
        self._samples += trajectory.batch
        out = (number % _HELD_OUT == _HELD_OUT - 1).to(trajectory.device)
        if out.any():
            self.unseen.update(trajectory.select(out))
        if not out.all():
            self.fitter.update(trajectory.select(~out))


class Unseen:
    """Keeps so many rows, every one that comes with equal probability, the same of all layers."""

    def __init__(self, rows: int, generator: torch.Generator) -> None:
        self._most, self._generator = max(rows, 2), generator
        self._keys = torch.empty(0, dtype=torch.float64)
        self._kept: dict[str, Tensor] = {}

    def update(self, trajectory: Trajectory) -> None:
        """Offer the rows of a trajectory."""
        rows = trajectory.rows()
        count = len(next(iter(rows.values())))
        drawn = torch.rand(count, generator=self._generator, dtype=torch.float64)
        order = torch.cat([self._keys, drawn]).argsort()[: self._most]
        self._keys = torch.cat([self._keys, drawn])[order]
        for layer, new in rows.items():
            old = self._kept.get(layer, new[:0])
            self._kept[layer] = torch.cat([old, new])[order.to(new.device)]

    def rows(self) -> dict[str, Tensor]:
        """Layer → rows, ``(rows, features)``, in an order of chance: the first few are a sample."""
        return dict(self._kept)
