"""Moments by class as they stand: what is read of them, and made of it."""

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


class ClassCovariances:
    """Second moments overall and per class; :class:`LabelledMoments` streams them.

    Args:
        pairs: variables whose covariances are there.
        halflife: of rows, or None.
        class_pairs: of the pairs those that are there by class; None for those of regressions.

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

    def fresh(self) -> Self:
        """Moments of the same pairs and halflife, of no rows."""
        return type(self)(self.pairs, self.halflife, self.class_pairs)

    @property
    def classes(self) -> tuple[int, ...]:
        """Classes with at least one row, ascending."""
        return tuple(sorted(self.by_class))

    @property
    def count(self) -> float:
        """Rows streamed; with a halflife the sum of their weights."""
        return sum(part.count for part in (self.unlabelled, self._faded, *self.by_class.values()))

    @property
    def torn(self) -> bool:
        """Whether taking rows in broke off half way; see ``Moments``."""
        return any(part.torn for part in self._parts())

    def require_whole(self) -> None:
        """Refuse moments that broke off; see ``Moments``."""
        for part in self._parts():
            part.require_whole()

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes: the larger part is one set of ``class_pairs`` for each class."""
        return sum(moments.nbytes for moments in self._parts())

    def features(self, name: str) -> int:
        """Width of a variable."""
        seen = [part for part in self._parts() if part.count and name in part.names]
        return (seen or [self.unlabelled])[0].features(name)

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

    def same_as(self, other: Self) -> bool:
        """Whether both are of the same rows in the same order: equal bit by bit."""
        mine, theirs = self.tensors(), other.tensors()
        return mine.keys() == theirs.keys() and all(
            torch.equal(tensor.cpu(), theirs[name].cpu()) for name, tensor in mine.items()
        )

    def affine(self, maps: Mapping[str, tuple[Tensor, Tensor]]) -> Self:
        """Moments of affine images of the variables; see :meth:`Moments.affine`."""
        pairs, class_pairs = (
            [(a, b) for a, b in known if a in maps and b in maps]
            for known in (self.pairs, self.class_pairs)
        )
        image = type(self)(pairs, class_pairs=class_pairs)
        image.shared = self.shared.affine(maps) if self.shared.count else image.shared
        self._image_each(image, lambda moments: moments.affine(maps))
        return image

    def between(self, start: str, end: str) -> Self:
        """The moments of two variables alone, renamed ``"start"`` and ``"end"``.

        By class only if ``class_pairs`` has what a regression of the end on the start takes.
        """
        pair = type(self)(roles(self.pairs, end))
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

    def _labelled(self) -> Moments:
        """Moments of all rows with a label."""
        known = [self._faded, *(self.by_class[label] for label in self.classes)]
        labelled = reduce(Moments.merge, known, Moments(self.class_pairs))
        return labelled.beside(self.shared).only(self.pairs)

    def _parts(self) -> tuple[Moments, ...]:
        return self.unlabelled, self.shared, self._faded, *self.by_class.values()

    def _image_each(self, image: Self, of: Callable[[Moments], Moments]) -> None:
        """Fill ``image`` with the images of the classes and of rows without one."""
        image.by_class = {label: of(moments) for label, moments in self.by_class.items()}
        if self._faded.count:
            image._faded = of(self._faded)
        if self.unlabelled.count or not image.by_class:
            image.unlabelled = of(self.unlabelled)
