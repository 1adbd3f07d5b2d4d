"""Moments by class: what unlearning needs to know, streamed beside the overall moments.

With a halflife the past fades: exponential forgetting, for streams of a network that still learns.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Self

import torch

from torchkoopman.observe.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor

    from torchkoopman.observe.pairs import Pair


_GONE = 2.0**-10
"""Rows: a class that weighs less has faded. One row of it has after ten halflives."""


class LabelledMoments:
    """Moments overall and per class; rows without a label count overall only.

    Args:
        pairs: variables whose covariances to keep.
        halflife: rows after which a row weighs half as much; None: all rows weigh the same. A row
            has the weight ``2 ** (-later / halflife)``, where ``later`` is the number of rows in
            the batches after its own, whatever their classes: rows of one batch weigh the same. In
            a long stream the weights sum to ``halflife / log 2``. Classes that have not come for
            long are no classes any more; what is left of them counts overall.

    Raises:
        ValueError: a halflife that is not a positive number.
    """

    def __init__(self, pairs: Iterable[Pair], halflife: float | None = None) -> None:
        self.pairs = tuple(pairs)
        self.halflife = check_halflife(halflife)
        self.by_class: dict[int, Moments] = {}
        self.unlabelled = Moments(self.pairs)

    @property
    def classes(self) -> tuple[int, ...]:
        """Classes with at least one row, ascending."""
        return tuple(sorted(self.by_class))

    @property
    def count(self) -> float:
        """Rows streamed; with a halflife the sum of their weights."""
        return self.unlabelled.count + sum(moments.count for moments in self.by_class.values())

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes: one set of moments per class, and one for unlabelled rows."""
        return self.unlabelled.nbytes + sum(moments.nbytes for moments in self.by_class.values())

    def features(self, name: str) -> int:
        """Width of a variable."""
        seen = [part for part in (self.unlabelled, *self.by_class.values()) if part.count]
        return (seen or [self.unlabelled])[0].features(name)

    def update(self, values: Mapping[str, Tensor], labels: Tensor | None = None) -> Self:
        """Take in one batch.

        Args:
            values: variable → rows, ``(rows, features)``.
            labels: class of each row, integers of shape ``(rows,)``; negative where unknown.
        """
        if self.halflife is not None and self.pairs:
            self._fade(2 ** (-len(values[self.pairs[0][0]]) / self.halflife))
        if labels is None:
            self.unlabelled.update(values)
            return self
        for label in torch.unique(labels).tolist():
            chosen = labels == label
            moments = self.unlabelled
            if label >= 0:
                moments = self.by_class.setdefault(int(label), Moments(self.pairs))
            moments.update({name: value[chosen] for name, value in values.items()})
        return self

    def total(self) -> Moments:
        """Moments of all rows."""
        return self.without(())

    def without(self, classes: Iterable[int]) -> Moments:
        """Moments of all rows but those of the given classes: the exact downdate."""
        dropped = set(classes)
        total = Moments(self.pairs).merge(self.unlabelled)
        for label in self.classes:
            if label not in dropped:
                total.merge(self.by_class[label])
        return total

    def same_as(self, other: LabelledMoments) -> bool:
        """Whether both are of the same rows in the same order: equal bit by bit."""
        mine, theirs = self.tensors(), other.tensors()
        return mine.keys() == theirs.keys() and all(
            torch.equal(tensor.cpu(), theirs[name].cpu()) for name, tensor in mine.items()
        )

    def merge(self, other: LabelledMoments) -> Self:
        """Take in another stream of the same pairs, widths and halflife, class by class.

        With a halflife each row keeps the weight it has, as if both streams ended now.

        Raises:
            ValueError: these are other moments, or the same object; nothing is changed then.
        """
        if other is self or (other.pairs, other.halflife) != (self.pairs, self.halflife):
            own = "themselves" if other is self else f"{self.pairs} of halflife {self.halflife}"
            raise ValueError(
                f"cannot merge moments of {other.pairs} of halflife {other.halflife} into {own}."
            )
        self.total().merge(other.total())  # refuses other widths
        self.unlabelled.merge(other.unlabelled)
        for label, moments in other.by_class.items():
            self.by_class.setdefault(label, Moments(self.pairs)).merge(moments)
        return self

    def affine(self, maps: Mapping[str, tuple[Tensor, Tensor]]) -> LabelledMoments:
        """Moments of affine images of the variables; see :meth:`Moments.affine`."""
        return self._each(lambda moments: moments.affine(maps))

    def between(self, start: str, end: str) -> LabelledMoments:
        """The moments of two variables alone, renamed ``"start"`` and ``"end"``."""
        return self._each(lambda moments: moments.between(start, end))

    def tensors(self) -> dict[str, Tensor]:
        """Everything as named float64 tensors, for saving; class ``c`` under ``class/c/``."""
        named = {f"unlabelled/{name}": t for name, t in self.unlabelled.tensors().items()}
        for label, moments in self.by_class.items():
            named |= {f"class/{label}/{name}": t for name, t in moments.tensors().items()}
        return named

    def load(self, tensors: Mapping[str, Tensor]) -> Self:
        """The inverse of :meth:`tensors`, which are copied; those of other pairs are refused."""
        streams: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            kind, rest = name.split("/", 1)
            stream, key = (kind, rest) if kind == "unlabelled" else rest.split("/", 1)
            streams.setdefault(stream, {})[key] = tensor
        loaded = {stream: Moments(self.pairs).load(named) for stream, named in streams.items()}
        self.unlabelled = loaded.pop("unlabelled", Moments(self.pairs))
        self.by_class = {int(label): moments for label, moments in loaded.items()}
        return self

    def _fade(self, factor: float) -> None:
        """Weigh all rows until now by ``factor``; classes with too little weight are let go."""
        self.unlabelled.fade(factor)
        for label, moments in list(self.by_class.items()):
            if moments.fade(factor).count < _GONE:
                self.unlabelled.merge(self.by_class.pop(label))

    def _each(self, image: Callable[[Moments], Moments]) -> LabelledMoments:
        images = {label: image(moments) for label, moments in self.by_class.items()}
        if self.unlabelled.count or not images:
            unlabelled = image(self.unlabelled)
        else:
            unlabelled = Moments(next(iter(images.values())).pairs)
        labelled = LabelledMoments(unlabelled.pairs)
        labelled.by_class, labelled.unlabelled = images, unlabelled
        return labelled


def check_halflife(halflife: float | None) -> float | None:
    """The halflife, if it is one.

    Raises:
        ValueError: it is not above 0; infinity is None.
        TypeError: it is no number.
    """
    if halflife is None:
        return None
    if isinstance(halflife, bool) or not isinstance(halflife, Real):
        raise TypeError(
            f"halflife={halflife!r} is a {type(halflife).__name__}; give a number of rows, or None "
            "to weigh all rows alike."
        )
    if not 0 < halflife < math.inf:
        raise ValueError(
            f"halflife={halflife} must be a positive number of rows, after which a row weighs half "
            "as much; None weighs all rows alike."
        )
    return float(halflife)
