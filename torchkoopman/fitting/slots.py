"""Memory for a bounded sample: where its paths lie, and what belongs to each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.fitting.draws import dying
from torchkoopman.observe.halflife import check_halflife

if TYPE_CHECKING:
    from collections.abc import Sequence

    Index = Tensor | slice


class Slots:
    """Places for at most ``max_bytes`` of paths, side by side, with classes and samples' numbers.

    Args:
        max_bytes: memory of all of it.
        halflife: of the sample, in rows; with one, paths of drawn places may lie anywhere.

    Raises:
        ValueError: a halflife that is not a positive number.
    """

    def __init__(self, max_bytes: int, halflife: float | None) -> None:
        self.max_bytes = max_bytes
        self.halflife = check_halflife(halflife)
        self._columns: list[Tensor] = []
        """Paths, their classes and their samples' numbers, -1 where unknown; none before any."""
        self._written = torch.empty(0, dtype=torch.long)
        """When each of them was written last, by the clock."""
        self._clock = 0
        """How often any was written."""
        self._training: Tensor | None = None
        """Where the paths lie that are trained on; None until it is asked for."""
        self._places = torch.empty(0, dtype=torch.long)
        """Where the path of each drawn place lies; -1 if none was ever written there."""
        self._born = torch.empty(0, dtype=torch.long)
        """Rows that had been offered when a path's batch ended; with a halflife only."""
        self._filled = 0

    def __len__(self) -> int:
        return self._filled

    def parts(self) -> list[Tensor]:
        """Paths, classes and samples' numbers; nothing where no path came."""
        return [each[: self._filled] for each in self._columns]

    def _write(self, where: Index, chosen: Index, columns: Sequence[Tensor]) -> None:
        """Put some paths, with what belongs to them, where others lie or none."""
        self._clock += 1
        self._written[where] = self._clock
        for mine, its in zip(self._columns, columns, strict=True):
            mine[_on(where, mine)] = its[_on(chosen, its)].to(mine)
        self._training = None

    def _lying(self, places: Tensor) -> Tensor:
        """Where the paths of drawn places lie: side by side, new ones behind those there are."""
        if self.halflife is None:  # places are filled in order
            self._filled = max(self._filled, int(places.max()) + 1 if len(places) else 0)
            return places
        new = places[self._places[places] < 0]
        self._places[new] = torch.arange(self._filled, self._filled + len(new))
        self._filled += len(new)
        return self._places[places]

    def _allocate(self, paths: Tensor) -> int:
        """Make room at the first batch; returns how many rows fit."""
        if not self._columns:
            integer = torch.iinfo(torch.long).bits // 8
            biased = self.halflife is not None
            row = paths[0].numel() * paths.element_size() + integer * (2 + 2 * biased)
            capacity = max(1, self.max_bytes // row)
            if self.halflife is not None:
                capacity = min(capacity, max(1, int(1 / dying(self.halflife))))
            unknown = torch.full((capacity,), -1, device=paths.device)
            self._columns = [paths.new_empty(capacity, *paths.shape[1:]), unknown, unknown.clone()]
            self._written = torch.zeros(capacity, dtype=torch.long)
            self._places = torch.full((capacity if biased else 0,), -1)
            self._born = torch.zeros_like(self._places)
        return len(self._columns[0])


def _on(rows: Index, tensor: Tensor) -> Index:
    """Row numbers on the device of what they are of."""
    return rows if isinstance(rows, slice) else rows.to(tensor.device)
