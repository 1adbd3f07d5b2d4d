"""A bounded sample of whole samples: all rows of those with the smallest numbers.

Each number is uniform and is the sample's own (see ``identity.py``), so these samples are drawn by
chance, none is there in part, and which they are depends neither on the order in which they came
nor on the process: bottom-k sampling (Cohen & Kaplan 2007). Thus a fit can be taken back by all
rows of a sample, those of earlier epochs included.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, Self

import torch

from torchkoopman.fitting.identity import mixed, thinned
from torchkoopman.fitting.readings import Reading, beside
from torchkoopman.observe.halflife import check_halflife

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from torchkoopman.observe.processes import Processes

RECORD = 3 * 8
"""Bytes of what belongs to a row: its sample's number, its share, and when it came."""
_ALL = 2**63 - 1
_SLACK = 1.125
"""How many times the rows that fit are held before those of the largest numbers are dropped."""
_PARTS = 32
"""Batches held apart, lest small ones pile up."""
Rows = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""Rows, their samples' numbers, how many rows each stands for, and when they came."""


class WholeSamples:
    """Rows of the samples with the smallest numbers, at most ``max_bytes`` of them.

    Of a sample with many positions some stand for all; see ``identity.thinned``.

    Args:
        max_bytes: memory of the rows.
        halflife: rows after which a row is kept with half the probability; None: all alike. A
            sample's number decides at what age its rows go.
    """

    def __init__(self, max_bytes: int, halflife: float | None = None) -> None:
        self.max_bytes = max_bytes
        self.halflife = check_halflife(halflife)
        self.seen = 0
        self._bound = _ALL
        """Samples with this number or a larger one are not kept."""
        self._parts: list[Rows] = []

    def __len__(self) -> int:
        return len(self._kept()[0]) if self._parts else 0

    def add(self, columns: Sequence[Tensor], ids: Tensor) -> Self:
        """Offer rows with their samples' numbers, each sample's together.

        Args:
            columns: the rows, side by side, each ``(rows, features)``.
            ids: numbers, ``(rows,)``.
        """
        self.seen += len(ids)
        kept, shares = thinned(ids)
        small = ids[kept] < self._bound
        kept, shares = kept[small], shares[small]
        if len(kept):
            born = torch.full((len(kept),), self.seen, device=ids.device)
            self._parts.append((beside(columns, kept), ids[kept], shares, born))
            if self._held() > _SLACK * self._capacity():
                self._lower()
            elif len(self._parts) > _PARTS:
                self._gather()
        return self

    def read(self, widths: Sequence[int], most: int | None = None) -> Reading:
        """What is held, or as many whole samples of it as have at most so many rows.

        Args:
            widths: of the columns that were added; other ones may be asked for that are as wide
                together.
            most: rows; None: all.
        """
        if not self._parts:
            nothing = torch.empty(0)
            return Reading((), nothing.long(), nothing.double())
        order, _ = self._kept(most)
        ids, shares, born = (
            torch.cat([part[which] for part in self._parts])[order] for which in (1, 2, 3)
        )
        weights = None
        if self.halflife is not None:
            weights = torch.exp2(-(self.seen - born).double() / self.halflife)
        first = self._parts[0][0]
        kind = reduce(torch.promote_types, (rows.dtype for rows, *_ in self._parts))
        columns = tuple(first.new_empty(len(order), width, dtype=kind) for width in widths)
        begin = 0
        for rows, *_ in self._parts:  # part by part, so that they are not all there twice
            here = ((order >= begin) & (order < begin + len(rows))).nonzero()[:, 0]
            sides = torch.split(rows, list(widths), 1)
            for whole, side in zip(columns, sides, strict=True):
                whole.index_copy_(0, here, side.index_select(0, order[here] - begin).to(kind))
            begin += len(rows)
        return Reading(columns, ids, shares, weights)

    def merge(self, other: WholeSamples) -> Self:
        """Take in another stream's rows, with a halflife as if both streams ended now.

        Raises:
            ValueError: another memory or halflife, or rows of another width.
        """
        mine, theirs = ((each.max_bytes, each.halflife, each._width()) for each in (self, other))
        if other is self or mine[:2] != theirs[:2] or 0 != mine[2] != theirs[2] != 0:
            raise ValueError(
                "two samples merge if they come from two streams and have the same memory, "
                f"halflife and width; these have {mine} and {theirs}."
            )
        before, self.seen = self.seen, self.seen + other.seen
        self._bound = min(self._bound, other._bound)
        mine_aged, theirs_aged = (
            [(*part[:3], part[3] + more) for part in each._parts]
            for each, more in ((self, other.seen), (other, before))
        )
        self._parts = mine_aged + theirs_aged
        self._lower()
        return self

    def of_all(self, processes: Processes, device: torch.device) -> WholeSamples:
        """A sample of the rows of all processes; this one stays as it is.

        The numbers are exchanged first, so that only rows travel that stay in the end.
        """
        mine = self._joined() if self._parts else None
        kinds = [] if mine is None else [(tuple(each.shape[1:]), each.dtype) for each in mine]
        ids = None if mine is None else mine[1]
        said = processes.gather((self.seen, self._bound, ids, kinds))
        bound = self._common_bound([each[1:] for each in said])
        total = WholeSamples(self.max_bytes, self.halflife)
        for rank, (seen, _, theirs, known) in enumerate(said):
            part = WholeSamples(self.max_bytes, self.halflife)
            part.seen, part._bound = seen, bound
            if known:
                stays = theirs < bound
                count = int(stays.sum())
                sent = [
                    torch.empty(count, *rest, dtype=kind, device=device) for rest, kind in known
                ]
                if rank == processes.rank and mine is not None:
                    sent = [each[stays.to(each.device)] for each in mine]
                rows, ids, shares, born = (processes.from_one(each, rank) for each in sent)
                part._parts = [(rows, ids, shares, born)] if count else []
            total.merge(part)
        return total

    def _common_bound(self, said: Sequence[tuple[int, Tensor | None, Any]]) -> int:
        """The number from which on no row is kept where several samples are joined.

        Args:
            said: of each its own bound, numbers, and shape and type of a row.
        """
        union = WholeSamples(self.max_bytes)
        union._bound = min(bound for bound, _, _ in said)
        for _, ids, kinds in said:
            if ids is not None:
                shape, kind = kinds[0]
                rows = torch.empty(1, *shape, dtype=kind).expand(len(ids), *shape)  # no memory
                union._parts.append((rows, ids, ids, ids))
        return union._kept()[1] if union._parts else union._bound

    def state_dict(self) -> dict[str, Any]:
        """The rows and what belongs to them, as tensors and plain types."""
        return {
            "seen": self.seen,
            "bound": self._bound,
            "rows": list(self._joined()) if self._parts else [],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go on from what :meth:`state_dict` said."""
        self.seen, self._bound = state["seen"], state["bound"]
        rows = [each.clone() for each in state["rows"]]
        self._parts = [(rows[0], rows[1], rows[2], rows[3])] if rows else []
        return self

    def _joined(self, parts: Sequence[Rows] | None = None) -> Rows:
        """All that is held, or some parts of it, as it came."""
        columns = zip(*(self._parts if parts is None else parts), strict=True)
        rows, ids, shares, born = (torch.cat(each) for each in columns)
        return rows, ids, shares, born

    def _gather(self) -> None:
        """Join small parts that came one after the other; all at once would be there twice."""
        few, runs = self._capacity() // 8, [self._parts[:1]]
        for part in self._parts[1:]:
            fits = sum(len(each[1]) for each in runs[-1]) + len(part[1]) <= few
            runs = [*runs[:-1], [*runs[-1], part]] if fits else [*runs, [part]]
        self._parts = [self._joined(run) if len(run) > 1 else run[0] for run in runs]

    def _lower(self) -> None:
        """Let go what does not fit, part by part, so that no row is copied but those that stay."""
        if not self._parts:
            return
        order, self._bound = self._kept()
        stays = torch.zeros(self._held(), dtype=torch.bool, device=order.device)
        stays[order] = True
        lying = torch.split(stays, [len(part[1]) for part in self._parts])
        for number, where in enumerate(lying):
            if not where.all():
                here, part = where.nonzero()[:, 0], self._parts[number]
                rows, ids, shares, born = (each.index_select(0, here) for each in part)
                self._parts[number] = rows, ids, shares, born
        self._parts = [part for part in self._parts if len(part[1])]

    def _kept(self, most: int | None = None) -> tuple[Tensor, int]:
        """Which of the rows held are kept, by number, and from which number on nothing is.

        Args:
            most: rows, if fewer than fit.
        """
        most = self._capacity() if most is None else max(1, min(most, self._capacity()))
        ids, born = (torch.cat([part[column] for part in self._parts]) for column in (1, 3))
        bound = self._bound
        alive = ids < bound
        if self.halflife is not None:
            chance = (mixed(ids).double() + 1) / 2.0**63
            alive &= (self.seen - born).double() <= -chance.log2() * self.halflife
        order = alive.nonzero()[:, 0]
        order = order[ids[order].argsort(stable=True)]
        numbers, counts = torch.unique_consecutive(ids[order], return_counts=True)
        fitting = max(1, int((counts.cumsum(0) <= most).sum()))
        if fitting < len(numbers):
            bound = int(numbers[fitting])
        # Of one sample alone there may be too many rows.
        return order[: min(int(counts[:fitting].sum()), most)], bound

    def _held(self) -> int:
        """Rows in all parts."""
        return sum(len(part[1]) for part in self._parts)

    def _capacity(self) -> int:
        """How many rows fit."""
        rows = self._parts[0][0]
        return max(1, self.max_bytes // (rows.shape[1] * rows.element_size() + RECORD))

    def _width(self) -> int:
        return self._parts[0][0].shape[1] if self._parts else 0
