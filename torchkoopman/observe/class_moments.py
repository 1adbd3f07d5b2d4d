"""Moments by class: what unlearning needs to know, streamed beside the overall moments.

Of a class it is what a regression without it takes: not how the last layer varies by itself, and of
layers between only where their spans are asked for. What no class keeps is there of all rows with a
label together, so that the moments of all rows are whole; and they are the same, to rounding.

With a halflife the past fades: exponential forgetting, for streams of a network that still learns.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import torch

from torchkoopman.observe.class_covariances import ClassCovariances
from torchkoopman.observe.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor

_OTHERS = {"unlabelled": "unlabelled", "labelled": "shared", "faded": "_faded"}
"""Names in files of what is of no class → attributes."""
_GONE = 2.0**-10
"""Rows: a class that weighs less has faded. One row of it has after ten halflives."""


class LabelledMoments(ClassCovariances):
    """Moments overall and per class; rows without a label count overall only.

    Args:
        pairs: variables whose covariances to keep.
        halflife: rows after which a row weighs half as much; None: all rows weigh the same. A row
            has the weight ``2 ** (-later / halflife)``, where ``later`` is the number of rows in
            the batches after its own, whatever their classes: rows of one batch weigh the same. In
            a long stream the weights sum to ``halflife / log 2``. Classes that have not come for
            long are no classes any more; what is left of them counts overall.
        class_pairs: of the pairs those to keep by class; None for those of regressions (see
            ``pairs.regressions``).

    Raises:
        ValueError: a halflife that is not a positive number.
    """

    def update(
        self,
        values: Mapping[str, Tensor],
        labels: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Self:
        """Take in one batch.

        Args:
            values: variable → rows, ``(rows, features)``.
            labels: class of each row, integers of shape ``(rows,)``; negative where unknown.
            weights: of rows that were several batches, as the earlier have faded, ``(rows,)``.

        Raises:
            ValueError: a variable's width differs from that of earlier batches; nothing is changed.
        """
        self.require_widths(values)
        if labels is None and self.halflife is None:
            self.unlabelled.update(values, weights)
            return self
        with self._together():
            if self.halflife is not None and self.pairs:
                self._fade(2 ** (-len(values[self.pairs[0][0]]) / self.halflife))
            if labels is None:
                self.unlabelled.update(values, weights)
                return self
            for label in map(int, torch.unique(labels).tolist()):
                moments = self.unlabelled
                if label >= 0:
                    moments = self.by_class.get(label) or Moments(self.class_pairs)
                moments.update(*_chosen(values, moments.names, labels == label, weights))
                if label >= 0:
                    self.by_class[label] = moments
            if self.shared.pairs and (labels >= 0).any():
                self.shared.update(*_chosen(values, self.shared.names, labels >= 0, weights))
            if weights is not None:
                self._let_go()
        return self

    def require_widths(self, values: Mapping[str, Tensor]) -> None:
        """Refuse rows of variables that had another width before; as ``Moments`` do.

        Raises:
            ValueError: one of them.
        """
        widths = {name: value.shape[1] for name, value in values.items() if len(value)}
        of_a_class = list(self.by_class.values())[:1]  # the others are as wide
        for moments in (self.unlabelled, self.shared, self._faded, *of_a_class):
            moments.require_widths(widths)

    def merge(self, other: LabelledMoments) -> Self:
        """Take in another stream of the same pairs, widths and halflife, class by class.

        With a halflife each row keeps the weight it has, as if both streams ended now.

        Raises:
            ValueError: these are other moments, or the same object; nothing is changed then.
        """
        mine, theirs = (
            f"{m.pairs}, by class {m.class_pairs}, of halflife {m.halflife}" for m in (self, other)
        )
        if other is self or mine != theirs:
            own = "themselves" if other is self else mine
            raise ValueError(f"cannot merge moments of {theirs} into {own}.")
        self.total().merge(other.total())  # refuses other widths
        with self._together():
            self.unlabelled.merge(other.unlabelled)
            self.shared.merge(other.shared)
            self._faded.merge(other._faded)
            for label, moments in other.by_class.items():
                self.by_class.setdefault(label, Moments(self.class_pairs)).merge(moments)
        return self

    def load(self, tensors: Mapping[str, Tensor]) -> Self:
        """The inverse of :meth:`tensors`, which are copied; those of other pairs are refused.

        Where every class has all pairs, as in older files, what none keeps is taken together.
        """
        streams: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            kind, rest = name.split("/", 1)
            stream, key = rest.split("/", 1) if kind == "class" else (kind, rest)
            streams.setdefault(stream, {})[key] = tensor
        fresh = self.fresh()
        for stream, named in streams.items():
            if stream in _OTHERS:
                getattr(fresh, _OTHERS[stream]).load(named)
            elif fresh.shared.pairs and all(f"scatter/{a}/{b}" in named for a, b in self.pairs):
                whole = Moments(self.pairs).load(named)
                fresh.shared.merge(whole.only(fresh.shared.pairs))
                fresh.by_class[int(stream)] = whole.only(self.class_pairs)
            else:
                fresh.by_class[int(stream)] = Moments(self.class_pairs).load(named)
        vars(self).update(vars(fresh))
        return self

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Where what is within it breaks off after something was changed, nothing is read more."""
        before = self.count
        try:
            yield
        except BaseException:
            for part in self._parts() if self.torn or self.count != before else ():
                part.torn = True
            raise

    def _fade(self, factor: float) -> None:
        """Weigh all rows until now by ``factor``."""
        for moments in self._parts():
            moments.fade(factor)
        self._let_go()

    def _let_go(self) -> None:
        """Classes with too little weight are none any more."""
        for label, moments in list(self.by_class.items()):
            if moments.count < _GONE:
                self._faded.merge(self.by_class.pop(label))


def _chosen(
    values: Mapping[str, Tensor], names: Iterable[str], rows: Tensor, weights: Tensor | None
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Some rows of some variables, and their weights."""
    index = rows.nonzero()[:, 0]  # once for all variables
    chosen = {name: values[name][index] for name in names}
    return chosen, None if weights is None else weights[index]
