"""Streaming, mergeable second moments: the only statistics there are.

Means and covariances of named variables are accumulated batch by batch in float64 with the update
of Chan, Golub & LeVeque (1983). Merging two streams gives what one stream would have given, and
memory does not grow with the number of rows. Rows may fade: then the count is the sum of weights.

Products of a batch's rows are formed in float64, or faster in float32. That errs by up to 1e-7 of
the largest variance in every direction: axes of any scale are fine, oblique directions below 1e-6
of it are uncertain. Regressions use those (their ridge is 1e-9), so float64 is the default.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from torchkoopman.observe import products
from torchkoopman.observe.covariances import Covariances

if TYPE_CHECKING:
    from collections.abc import Mapping

NOTHING = 1e-30
"""Rows: what weighs less counts as nothing; its sums would soon be denormal numbers, and slow."""


class Moments(Covariances):
    """Count, means and covariances of named variables over a stream of rows.

    Covariances exist for the pairs asked for; they are normalised by the row count. Where the past
    was made to fade (:meth:`fade`), rows count by their weights: ``count`` is the sum of those.

    Args:
        pairs: variables whose covariances to keep.
        precision: of products within a batch: float64, or float32 (never TF32); sums are float64.
    """

    @torch.no_grad()
    def update(self, values: Mapping[str, Tensor], weights: Tensor | None = None) -> Self:
        """Take in one batch.

        Args:
            values: variable → rows, ``(rows, features)``; row i of all of them is the same point.
            weights: above 0, ``(rows,)``; by default every row weighs 1.

        Raises:
            ValueError: a variable's width differs from that of earlier batches.
        """
        batch = {name: values[name].detach() for name in self.names}
        if len(batch[self.names[0]]) == 0:
            return self
        self._allocate(batch)
        parts = products.parts(batch)
        most = max(part.stop - part.start for part in parts)
        rows = products.room_for(batch, most, self._alone, self.precision)
        with nullcontext() if self.precision == torch.float64 else products.exact_float32():
            for part in parts:
                share = None if weights is None else weights[part]
                self._take({name: value[part] for name, value in batch.items()}, share, rows)
        return self

    def _take(
        self, batch: Mapping[str, Tensor], weights: Tensor | None, room: Mapping[str, Tensor]
    ) -> None:
        """Take in rows of a batch; ``room`` has memory for as many and one more."""
        count = len(batch[self.names[0]])
        mass: float = count if weights is None else weights.double().sum().item()
        rows = {name: each[: count + 1] for name, each in room.items()}
        means: dict[str, Tensor] = {}
        # Chan's mean correction is one more row of the product.
        weight = (self.count * mass / (self.count + mass)) ** 0.5
        with self._at_once():
            self._halved = True
            for (a, b), scatter in self._sums.items():
                for name in {a, b} - means.keys():
                    means[name] = products.centre(rows[name], batch[name], weights, mass)
                    rows[name][-1] = weight * (means[name] - self._means[name])
                if a == b:
                    products.add_square(scatter, rows[a])
                else:
                    products.add_product(scatter, rows[a], rows[b])
            self.count += mass
            for name, mean in means.items():
                self._means[name] += (mean - self._means[name]) * (mass / self.count)

    def fade(self, factor: float) -> Self:
        """Multiply the weight of every row until now by ``factor``, between 0 and 1.

        A mean does not change by it; count and scatters shrink alike, so no covariance does either:
        what changes is how much the rows to come will weigh against these.
        """
        with self._at_once():
            self.count = 0 if self.count * factor < NOTHING else self.count * factor
            factor = factor if self.count else 0.0
            for scatter in self._sums.values():
                scatter *= factor
        return self

    def merge(self, other: Moments) -> Self:
        """Take in another stream of the same pairs and widths, as if its rows had come here."""
        if other is self or other.pairs != self.pairs:
            own = "themselves" if other is self else f"moments of {self.pairs}"
            raise ValueError(f"cannot merge moments of {other.pairs} into {own}.")
        if other.count == 0:
            return self
        if not self._means:
            means = {name: mean.clone() for name, mean in other._means.items()}
            sums = {pair: scatter.clone() for pair, scatter in other._scatters.items()}
            with self._at_once():
                self.count, self._means, self._sums, self._halved = other.count, means, sums, False
            return self
        self.require_widths({name: len(mean) for name, mean in other._means.items()})
        total = self.count + other.count
        delta = {name: other._means[name] - self._means[name] for name in self.names}
        both = [(pair, scatter, other._scatters[pair]) for pair, scatter in self._scatters.items()]
        with self._at_once():
            for (a, b), scatter, theirs in both:
                scatter += theirs
                scatter.addr_(delta[a], delta[b], alpha=self.count * other.count / total)
            for name in self.names:
                self._means[name] += delta[name] * (other.count / total)
            self.count = total
        return self

    def minus(self, other: Moments) -> Moments:
        """The moments of the rows of this stream that are not in ``other``: :meth:`merge` undone.

        Raises:
            ValueError: ``other`` has other pairs, or as many rows or more.
        """
        if other.pairs != self.pairs or other.count >= self.count:
            raise ValueError(
                f"cannot take {other.count} rows of {other.pairs} out of {self.count} rows of "
                f"{self.pairs}; they must be part of the stream, and some rows must be left."
            )
        if other.count == 0:
            return Moments(self.pairs).merge(self)
        count = self.count - other.count
        share = other.count / count
        means = {name: self._means[name].clone() for name in self.names}
        for name, mean in means.items():
            mean += share * (self._means[name] - other._means[name])
        delta = {name: other._means[name] - means[name] for name in self.names}
        sums = {}
        for (a, b), scatter in self._scatters.items():
            between = torch.outer(delta[a], delta[b]) * (count * other.count / self.count)
            sums[a, b] = scatter - other._scatters[a, b] - between
        return self._of(self.pairs, count, means, sums)

    def load(self, tensors: Mapping[str, Tensor]) -> Self:
        """The inverse of :meth:`tensors`, which are copied; those of other pairs are refused."""
        means = {name: f"mean/{name}" for name in self.names}
        scatters = {(a, b): f"scatter/{a}/{b}" for a, b in self.pairs}
        some = len(tensors) > 1 or bool(tensors["count"])  # the former also where all has faded
        if some and tensors.keys() != {"count", *means.values(), *scatters.values()}:
            raise ValueError(f"moments of {self.pairs} cannot be loaded from {list(tensors)}.")
        self.count = _number(tensors["count"])
        self._means = {name: tensors[key].clone() for name, key in means.items() if some}
        self._halved = False
        self._sums = {pair: tensors[key].clone() for pair, key in scatters.items() if some}
        self.torn = False
        return self

    def require_widths(self, widths: Mapping[str, int]) -> None:
        """Refuse variables that had another width before; see :func:`same_width`."""
        for name, mean in self._means.items():
            before = mean.shape[0]
            same_width(name, before, widths.get(name, before))

    def _allocate(self, batch: Mapping[str, Tensor]) -> None:
        widths = {name: value.shape[1] for name, value in batch.items()}
        self.require_widths(widths)
        if not self._means:
            zeros = partial(torch.zeros, dtype=torch.float64, device=batch[self.names[0]].device)
            self._means = {name: zeros(widths[name]) for name in self.names}
            self._sums = {(a, b): zeros(widths[a], widths[b]) for a, b in self.pairs}


def same_width(name: str, before: int, now: int) -> None:
    """Refuse a variable that had another width before.

    Raises:
        ValueError: it had.
    """
    if now != before:
        raise ValueError(
            f"{name!r} had {before} features in earlier batches and has {now} now; moments need "
            "one width per variable. Start a new stream, or choose a layout whose features do not "
            "depend on the input's size."
        )


def _number(count: Tensor) -> float:
    """A count as Python's number, whole where nothing has faded."""
    value: float = count.item()
    return int(value) if value.is_integer() else value
