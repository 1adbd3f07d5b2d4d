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
from torchkoopman.observe.pairs import Pair, layer_pairs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NOTHING = 1e-30
"""Rows: what weighs less counts as nothing; its sums would soon be denormal numbers, and slow."""


class Moments:
    """Count, means and covariances of named variables over a stream of rows.

    Covariances exist for the pairs asked for; they are normalised by the row count. Where the past
    was made to fade (:meth:`fade`), rows count by their weights: ``count`` is the sum of those.

    Args:
        pairs: variables whose covariances to keep.
        precision: of products within a batch: float64, or float32 (never TF32); sums are float64.
    """

    def __init__(self, pairs: Iterable[Pair], *, precision: torch.dtype = torch.float64) -> None:
        if precision not in (torch.float64, torch.float32):
            raise ValueError(f"precision={precision} is unknown; choose torch.float64 or float32.")
        self.precision = precision
        self.pairs = tuple(dict.fromkeys(pairs))
        self.names = tuple(dict.fromkeys(name for pair in self.pairs for name in pair))
        crossing = {name for pair in self.pairs for name in pair if len({*pair}) == 2}
        self._alone = {*self.names} - crossing
        self.count: float = 0
        self._means: dict[str, Tensor] = {}
        self._sums: dict[Pair, Tensor] = {}
        self._halved = False
        """Whether sums of squares are there below the diagonal alone, as they are streamed."""

    @property
    def _scatters(self) -> dict[Pair, Tensor]:
        """Pair → the sum of products of centred rows, ``(features_a, features_b)``."""
        for a, b in self._sums if self._halved else ():
            if a == b:
                products.mirror(self._sums[a, b])
        self._halved = False
        return self._sums

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
        mass: float = len(batch[self.names[0]]) if weights is None else weights.sum().item()
        self._allocate({name: value.shape[1] for name, value in batch.items()}, values)
        rows = products.room_for(batch, self._alone, self.precision)
        means: dict[str, Tensor] = {}
        # Chan's mean correction is one more row of the product.
        weight = (self.count * mass / (self.count + mass)) ** 0.5
        self._halved = True
        with nullcontext() if self.precision == torch.float64 else products.exact_float32():
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
        return self

    def fade(self, factor: float) -> Self:
        """Multiply the weight of every row until now by ``factor``, between 0 and 1.

        A mean does not change by it; count and scatters shrink alike, so no covariance does either:
        what changes is how much the rows to come will weigh against these.
        """
        self.count = 0 if self.count * factor < _NOTHING else self.count * factor
        factor = factor if self.count else 0.0
        for scatter in self._sums.values():
            scatter *= factor
        return self

    def mean(self, name: str) -> Tensor:
        """Mean of a variable, float64, shape ``(features,)``."""
        self._require_rows()
        return self._means[name]

    def cov(self, a: str, b: str) -> Tensor:
        """Covariance of two variables, float64, shape ``(features_a, features_b)``."""
        self._require_rows()
        if (a, b) in self._scatters:
            return self._scatters[a, b] / self.count
        if (b, a) in self._scatters:
            return self._scatters[b, a].T / self.count
        raise KeyError(f"the covariance of {a!r} and {b!r} was not asked for; pairs: {self.pairs}.")

    def second(self, a: str, b: str) -> Tensor:
        """Uncentred second moment E[a bᵀ], shape ``(features_a, features_b)``."""
        return self.cov(a, b) + torch.outer(self.mean(a), self.mean(b))

    def features(self, name: str) -> int:
        """Width of a variable."""
        self._require_rows()
        return len(self._means[name])

    @property
    def nbytes(self) -> int:
        """Memory taken by the sums, in bytes; it does not depend on the number of rows."""
        return sum(each.nbytes for each in (*self._means.values(), *self._sums.values()))

    def merge(self, other: Moments) -> Self:
        """Take in another stream of the same pairs and widths, as if its rows had come here."""
        if other is self or other.pairs != self.pairs:
            own = "themselves" if other is self else f"moments of {self.pairs}"
            raise ValueError(f"cannot merge moments of {other.pairs} into {own}.")
        if other.count == 0:
            return self
        self._allocate({name: len(mean) for name, mean in other._means.items()}, other._means)
        total = self.count + other.count
        delta = {name: other._means[name] - self._means[name] for name in self.names}
        for (a, b), scatter in self._scatters.items():
            scatter += other._scatters[a, b]
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
        rest = Moments(self.pairs, precision=self.precision)
        rest.count = self.count - other.count
        share = other.count / rest.count
        for name in self.names:
            shift = self._means[name] - other._means[name]
            rest._means[name] = self._means[name] + share * shift
        delta = {name: other._means[name] - rest._means[name] for name in self.names}
        for (a, b), scatter in self._scatters.items():
            between = torch.outer(delta[a], delta[b]) * (rest.count * other.count / self.count)
            rest._sums[a, b] = scatter - other._scatters[a, b] - between
        return rest

    def affine(self, maps: Mapping[str, tuple[Tensor, Tensor]]) -> Moments:
        """Moments of the affine images ``weight @ x + bias`` of the variables named in ``maps``.

        Exact: nothing is streamed again. Pairs with a variable that has no map are left out.
        """
        self._require_rows()
        image = Moments(pair for pair in self.pairs if pair[0] in maps and pair[1] in maps)
        image.count = self.count
        weights = {name: weight.double() for name, (weight, _) in maps.items()}
        for name in image.names:
            image._means[name] = weights[name] @ self._means[name] + maps[name][1].double()
        for a, b in image.pairs:
            image._sums[a, b] = weights[a] @ self._scatters[a, b] @ weights[b].T
        return image

    def between(self, start: str, end: str) -> Moments:
        """The moments of two variables alone, renamed ``"start"`` and ``"end"``."""
        self._require_rows()
        pair = Moments(layer_pairs(("start", "end"), "ends"))
        names = {"start": start, "end": end}
        pair.count = self.count
        pair._means = {role: self._means[name].clone() for role, name in names.items()}
        pair._sums = {(a, b): self.cov(names[a], names[b]) * self.count for a, b in pair.pairs}
        return pair

    def tensors(self) -> dict[str, Tensor]:
        """Everything as named float64 tensors, for saving."""
        return {
            "count": torch.tensor(float(self.count), dtype=torch.float64),
            **{f"mean/{name}": mean for name, mean in self._means.items()},
            **{f"scatter/{a}/{b}": scatter for (a, b), scatter in self._scatters.items()},
        }

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
        return self

    def _allocate(self, widths: Mapping[str, int], like: Mapping[str, Tensor]) -> None:
        if not self._means:
            zeros = partial(torch.zeros, dtype=torch.float64, device=like[self.names[0]].device)
            self._means = {name: zeros(widths[name]) for name in self.names}
            self._sums = {(a, b): zeros(widths[a], widths[b]) for a, b in self.pairs}
        for name in self.names:
            if widths[name] != len(self._means[name]):
                raise ValueError(
                    f"{name!r} had {len(self._means[name])} features in earlier batches and has "
                    f"{widths[name]} now; moments need one width per variable. Start a new stream, "
                    "or choose a layout whose features do not depend on the input's size."
                )

    def _require_rows(self) -> None:
        if self.count == 0:
            raise ValueError(f"no rows of {self.names} were streamed yet; moments need one.")


def _number(count: Tensor) -> float:
    """A count as Python's number, whole where nothing has faded."""
    value: float = count.item()
    return int(value) if value.is_integer() else value
