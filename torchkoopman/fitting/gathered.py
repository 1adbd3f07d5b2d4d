"""Moments by class of a stream whose short batches wait until their products are worth forming.

A product of few rows takes longer to move its sums than to multiply: of a batch of 64 rows of ten
classes, nearly all the time. So rows of short batches wait, as they came, until there are some for
each class. Whoever reads the moments finds all rows in them.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from torchkoopman.observe.interrupts import uninterrupted
from torchkoopman.observe.moments import NOTHING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torchkoopman.observe.class_moments import LabelledMoments
    from torchkoopman.observe.pairs import Pair

_ROWS = 512, 64
"""Rows that do not wait, and the same for each class that is known, if those are more."""
_BYTES, _SHARE = 2**22, 0.25
"""Memory of rows that does not wait, and the same as a share of that of the sums, if it is more."""
_COPIED = 2**26
"""Bytes of sums that are copied to be read while rows wait; larger ones take the rows in."""


class Gathered:
    """Moments, and rows that wait to be taken into them.

    Args:
        moments: where the rows go.
    """

    def __init__(self, moments: LabelledMoments) -> None:
        self._taken = moments
        self._waiting: list[_Batch] = []
        self._large: int | None = None
        """Bytes of rows that do not wait; None where the sums may have grown since."""
        self._all: LabelledMoments | None = None
        """The moments of all rows, once somebody has read them, until more come."""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Variables whose covariances are kept."""
        return self._taken.pairs

    @property
    def count(self) -> float:
        """Rows that have come; with a halflife the sum of their weights."""
        count, halflife = self._taken.count, self._taken.halflife
        for batch in self._waiting:
            faded = 1 if halflife is None else 2 ** (-batch.rows / halflife)
            count = count * faded + batch.rows
        return count

    @property
    def moments(self) -> LabelledMoments:
        """The moments of all rows that have come, only to be read.

        Reading leaves the sums as they are, unless they are large: what is multiplied together, and
        so the last bits of what comes, does not depend on it.
        """
        if self._waiting and self._taken.nbytes > _COPIED:
            self._take()
        if not self._waiting:
            return self._taken
        if self._all is None:
            self._all = copy.deepcopy(self._taken).update(*_joined(self._waiting, self._taken))
        return self._all

    def update(self, values: Mapping[str, Tensor], labels: Tensor | None = None) -> Self:
        """Take in one batch; see ``LabelledMoments.update``. Of rows that wait these are copies.

        Raises:
            ValueError: a variable's width differs from that of earlier batches, which stay.
            RuntimeError: an earlier batch broke off half way.
        """
        self._taken.require_whole()
        self._all, batch = None, _Batch.of(values, labels)
        if self._enters(batch) or (self._waiting and self._waiting[0].kind != batch.kind):
            self._take()  # in the order in which they came
            self._taken.update(batch.values, batch.labels)
            self._large = None
        elif batch.rows:
            if not self._waiting:  # else they are of one kind
                self._taken.require_widths(batch.values)
            if self._enters(*self._waiting, batch):
                self._take(batch)
            else:
                self._waiting.append(batch.copy())
        return self

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Where what is within it breaks off, nothing is read of the moments any more."""
        try:
            yield
        except BaseException:
            self._taken.unlabelled.torn = True
            raise

    def merge(self, other: LabelledMoments) -> Self:
        """Take in another stream; see ``LabelledMoments.merge``."""
        self._all = None
        self._take()
        self._taken.merge(other)
        self._large = None
        return self

    def state(self) -> dict[str, Any]:
        """Sums and waiting rows apart, so that who goes on from it forms the same products."""
        waiting = [(batch.values, batch.labels) for batch in self._waiting]
        return {"taken": self._taken.tensors(), "waiting": waiting}

    def load(self, state: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`state`; or of sums alone, as older states have them."""
        self._all = None
        self._taken.load(state.get("taken", state))
        self._waiting = [_Batch(*batch) for batch in state.get("waiting", ())]
        self._large = None
        return self

    def _enters(self, *batches: _Batch) -> bool:
        """Whether there are rows enough to form products of."""
        rows, of_class = _ROWS
        if sum(each.rows for each in batches) >= max(rows, of_class * len(self._taken.by_class)):
            return True
        if self._large is None:
            self._large = max(_BYTES, int(_SHARE * self._taken.nbytes))
        return sum(each.nbytes for each in batches) >= self._large

    def _take(self, *last: _Batch) -> None:
        """Form the products of the rows that wait, and of a last batch."""
        waiting, batches = self._waiting, [*self._waiting, *last]
        if not batches:
            return
        joined = _joined(batches, self._taken)
        with uninterrupted():
            self._waiting = []
            try:
                self._taken.update(*joined)
            except BaseException:
                if not self._taken.torn:  # nothing was taken, for want of memory
                    self._waiting = waiting
                raise
        self._large = None


@dataclass(frozen=True)
class _Batch:
    """Rows of one batch, or of several."""

    values: dict[str, Tensor]
    labels: Tensor | None

    @classmethod
    def of(cls, values: Mapping[str, Tensor], labels: Tensor | None) -> Self:
        """Of tensors that may have a gradient."""
        return cls({name: value.detach() for name, value in values.items()}, labels)

    @cached_property
    def rows(self) -> int:
        return len(next(iter(self.values.values()), ()))

    @cached_property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in self.values.values())

    @cached_property
    def kind(self) -> list[object]:
        """What batches must have in common to be joined."""
        kinds = [(name, v.shape[1], v.dtype, v.device) for name, v in self.values.items()]
        return [*kinds, None if self.labels is None else (self.labels.dtype, self.labels.device)]

    def copy(self) -> _Batch:
        """With memory of its own."""
        values = {name: value.clone() for name, value in self.values.items()}
        return _Batch(values, None if self.labels is None else self.labels.clone())


def _joined(
    batches: list[_Batch], moments: LabelledMoments
) -> tuple[dict[str, Tensor], Tensor | None, Tensor | None]:
    """Rows of batches of one kind, their labels, and their weights by the end of the last."""
    values = {name: torch.cat([b.values[name] for b in batches]) for name in batches[0].values}
    labels = [batch.labels for batch in batches if batch.labels is not None]
    known = torch.cat(labels) if labels else None
    if moments.halflife is None or len(batches) == 1:
        return values, known, None
    counts = torch.tensor([batch.rows for batch in batches])
    later = counts.sum() - counts.cumsum(0)
    weights = torch.exp2(-later.double() / moments.halflife).clamp(min=NOTHING)
    weights = weights.repeat_interleave(counts)
    return values, known, weights.to(next(iter(values.values())).device)
