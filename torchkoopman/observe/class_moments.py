"""Moments by class: what unlearning needs to know, streamed beside the overall moments.

Of a class it is what a regression without it takes: not how the last layer varies by itself, and of
layers between only where their spans are asked for. What no class keeps is there of all rows with a
label together, so that the moments of all rows are whole; and they are the same, to rounding.

With a halflife the past fades: exponential forgetting, for streams of a network that still learns.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Self

import torch

from torchkoopman.observe.halflife import check_halflife
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import regressions, roles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor

    from torchkoopman.observe.pairs import Pair

_OTHERS = {"unlabelled": "unlabelled", "labelled": "shared", "faded": "_faded"}
"""Names in files of what is of no class → attributes."""
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
        class_pairs: of the pairs those to keep by class; None for those of regressions (see
            ``pairs.regressions``).

    Raises:
        ValueError: a halflife that is not a positive number.
    """

    def __init__(
        self,
        pairs: Iterable[Pair],
        halflife: float | None = None,
        class_pairs: Iterable[Pair] | None = None,
    ) -> None:
        self.pairs = tuple(pairs)
        self.class_pairs = regressions(self.pairs) if class_pairs is None else tuple(class_pairs)
        self.halflife = check_halflife(halflife)
        self.by_class: dict[int, Moments] = {}
        self.unlabelled = Moments(self.pairs)
        self.shared = Moments(pair for pair in self.pairs if pair not in self.class_pairs)
        """Of all rows with a label together."""
        self._faded = Moments(self.class_pairs)
        """Of classes that are none any more."""

    def fresh(self) -> LabelledMoments:
        """Moments of the same pairs and halflife, of no rows."""
        return LabelledMoments(self.pairs, self.halflife, self.class_pairs)

    @property
    def classes(self) -> tuple[int, ...]:
        """Classes with at least one row, ascending."""
        return tuple(sorted(self.by_class))

    @property
    def count(self) -> float:
        """Rows streamed; with a halflife the sum of their weights."""
        return sum(part.count for part in (self.unlabelled, self._faded, *self.by_class.values()))

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes: the larger part is one set of ``class_pairs`` for each class."""
        return sum(moments.nbytes for moments in self._parts())

    def features(self, name: str) -> int:
        """Width of a variable."""
        seen = [part for part in self._parts() if part.count and name in part.names]
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
                moments = self.by_class.setdefault(int(label), Moments(self.class_pairs))
            moments.update({name: values[name][chosen] for name in moments.names})
        known = labels >= 0
        if self.shared.pairs and known.any():
            self.shared.update({name: values[name][known] for name in self.shared.names})
        return self

    def viewed(self) -> Moments:
        """Moments of all rows, only to be read: without labels they are these, and change."""
        return self.total() if self.by_class or self._faded.count else self.unlabelled

    def total(self) -> Moments:
        """Moments of all rows, as a copy."""
        return Moments(self.pairs).merge(self.unlabelled).merge(self._labelled())

    def without(self, classes: Iterable[int]) -> Moments:
        """Moments of all rows but those of the given classes: the exact downdate.

        Of the pairs kept by class alone, where one of the classes has rows.
        """
        dropped = {label for label in classes if label in self.by_class}
        if not dropped:
            return self.total()
        left = [self.unlabelled.only(self.class_pairs), self._faded]
        left += [self.by_class[label] for label in self.classes if label not in dropped]
        return reduce(Moments.merge, left, Moments(self.class_pairs))

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
        mine, theirs = (
            f"{m.pairs}, by class {m.class_pairs}, of halflife {m.halflife}" for m in (self, other)
        )
        if other is self or mine != theirs:
            own = "themselves" if other is self else mine
            raise ValueError(f"cannot merge moments of {theirs} into {own}.")
        self.total().merge(other.total())  # refuses other widths
        self.unlabelled.merge(other.unlabelled)
        self.shared.merge(other.shared)
        self._faded.merge(other._faded)
        for label, moments in other.by_class.items():
            self.by_class.setdefault(label, Moments(self.class_pairs)).merge(moments)
        return self

    def affine(self, maps: Mapping[str, tuple[Tensor, Tensor]]) -> LabelledMoments:
        """Moments of affine images of the variables; see :meth:`Moments.affine`."""
        pairs, class_pairs = (
            [(a, b) for a, b in known if a in maps and b in maps]
            for known in (self.pairs, self.class_pairs)
        )
        image = LabelledMoments(pairs, class_pairs=class_pairs)
        image.shared = self.shared.affine(maps) if self.shared.count else image.shared
        self._image_each(image, lambda moments: moments.affine(maps))
        return image

    def between(self, start: str, end: str) -> LabelledMoments:
        """The moments of two variables alone, renamed ``"start"`` and ``"end"``.

        By class only if ``class_pairs`` has what a regression of the end on the start takes.
        """
        pair = LabelledMoments(roles(self.pairs, end))
        regression = [(start, start), (start, end)]
        if not {*regression} <= {*self.class_pairs}:
            pair.unlabelled = self.viewed().between(start, end)
            return pair
        labelled = self._labelled()
        if labelled.count and pair.shared.pairs:
            pair.shared = labelled.between(start, end).only(pair.shared.pairs)
        self._image_each(pair, lambda moments: moments.only(regression).between(start, end))
        if self.unlabelled.count:
            pair.unlabelled = self.unlabelled.between(start, end)
        return pair

    def tensors(self) -> dict[str, Tensor]:
        """Everything as named float64 tensors, for saving; class ``c`` under ``class/c/``."""
        streams = {"unlabelled": self.unlabelled}
        streams |= {f"class/{label}": moments for label, moments in self.by_class.items()}
        others = {"labelled": self.shared, "faded": self._faded}
        streams |= {name: moments for name, moments in others.items() if moments.nbytes}
        return {
            f"{stream}/{name}": tensor
            for stream, moments in streams.items()
            for name, tensor in moments.tensors().items()
        }

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

    def _labelled(self) -> Moments:
        """Moments of all rows with a label."""
        known = [self._faded, *(self.by_class[label] for label in self.classes)]
        labelled = reduce(Moments.merge, known, Moments(self.class_pairs))
        return labelled.beside(self.shared).only(self.pairs)

    def _parts(self) -> tuple[Moments, ...]:
        return self.unlabelled, self.shared, self._faded, *self.by_class.values()

    def _fade(self, factor: float) -> None:
        """Weigh all rows until now by ``factor``; classes with too little weight are let go."""
        for moments in self._parts():
            moments.fade(factor)
        for label, moments in list(self.by_class.items()):
            if moments.count < _GONE:
                self._faded.merge(self.by_class.pop(label))

    def _image_each(self, image: LabelledMoments, of: Callable[[Moments], Moments]) -> None:
        """Fill ``image`` with the images of the classes and of rows without one."""
        image.by_class = {label: of(moments) for label, moments in self.by_class.items()}
        if self._faded.count:
            image._faded = of(self._faded)
        if self.unlabelled.count or not image.by_class:
            image.unlabelled = of(self.unlabelled)
