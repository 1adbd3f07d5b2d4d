"""Count, means and covariances of named variables: what is read of moments, and made of it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from torchkoopman.observe import products
from torchkoopman.observe.pairs import Pair, roles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class Covariances:
    """Second moments as they stand; :class:`Moments` streams them.

    Args:
        pairs: variables whose covariances are there.
        precision: of products within a batch.

    Raises:
        ValueError: another precision than float64 and float32.
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
        self.torn = False
        """Whether taking rows in broke off half way, so that some sums have rows that others lack.
        Nothing is read of such moments."""

    @property
    def _scatters(self) -> dict[Pair, Tensor]:
        """Pair → the sum of products of centred rows, ``(features_a, features_b)``."""
        self.require_whole()
        for a, b in self._sums if self._halved else ():
            if a == b:
                products.mirror(self._sums[a, b])
        self._halved = False
        return self._sums

    def mean(self, name: str) -> Tensor:
        """Mean of a variable, float64, shape ``(features,)``."""
        self._require_rows()
        return self._means[name]

    def cov(self, a: str, b: str) -> Tensor:
        """Covariance of two variables, float64, shape ``(features_a, features_b)``."""
        return self._scatter(a, b) / self.count

    def _scatter(self, a: str, b: str) -> Tensor:
        """Sum of products of centred rows; shares memory."""
        self._require_rows()
        if (a, b) in self._scatters:
            return self._scatters[a, b]
        if (b, a) in self._scatters:
            return self._scatters[b, a].T
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

    def affine(self, maps: Mapping[str, tuple[Tensor, Tensor]]) -> Self:
        """Moments of the affine images ``weight @ x + bias`` of the variables named in ``maps``.

        Exact: nothing is streamed again. Pairs with a variable that has no map are left out.
        """
        self._require_rows()
        pairs = [pair for pair in self.pairs if pair[0] in maps and pair[1] in maps]
        weights = {name: weight.double() for name, (weight, _) in maps.items()}
        means = {name: maps[name][1].double() for pair in pairs for name in pair}
        means = {name: weights[name] @ self._means[name] + bias for name, bias in means.items()}
        sums = {(a, b): weights[a] @ self._scatters[a, b] @ weights[b].T for a, b in pairs}
        return self._of(pairs, self.count, means, sums)

    def between(self, start: str, end: str) -> Self:
        """The moments of two variables alone, renamed ``"start"`` and ``"end"``.

        Without the covariance of ``end`` with itself if it was not asked for.
        """
        self._require_rows()
        names = {"start": start, "end": end}
        pairs = roles(self.pairs, end)
        means = {role: self._means[name].clone() for role, name in names.items()}
        sums = {(a, b): self._scatter(names[a], names[b]).clone() for a, b in pairs}
        return self._of(pairs, self.count, means, sums)

    def only(self, pairs: Iterable[Pair]) -> Self:
        """The moments of some of the pairs; they share memory with these, so only read them."""
        pairs = tuple(pairs)
        sums = {pair: self._scatters[pair] for pair in pairs if self._sums}
        return self._of(pairs, self.count, self._means, sums)

    def beside(self, other: Self) -> Self:
        """The pairs of both as one, where ``other`` is of the same rows; memory is shared."""
        means, sums = other._means | self._means, self._scatters | other._scatters
        return self._of((*self.pairs, *other.pairs), self.count, means, sums)

    def tensors(self) -> dict[str, Tensor]:
        """Everything as named float64 tensors, for saving."""
        return {
            "count": torch.tensor(float(self.count), dtype=torch.float64),
            **{f"mean/{name}": mean for name, mean in self._means.items()},
            **{f"scatter/{a}/{b}": scatter for (a, b), scatter in self._scatters.items()},
        }

    def _of(
        self,
        pairs: Iterable[Pair],
        count: float,
        means: Mapping[str, Tensor],
        sums: dict[Pair, Tensor],
    ) -> Self:
        """Moments of these values, which they keep, and of this precision."""
        made = type(self)(pairs, precision=self.precision)
        made.count, made._sums = count, sums
        made._means = {name: means[name] for name in made.names if means}
        return made

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """What breaks off within it leaves moments of which nothing is read."""
        self.require_whole()
        self.torn = True
        yield
        self.torn = False

    def require_whole(self) -> None:
        """Refuse moments that broke off while they took rows in.

        Raises:
            RuntimeError: they did.
        """
        if self.torn:
            raise RuntimeError(
                f"moments of {self.names} broke off while they took rows in, for want of memory, "
                "say, or by an interrupt: some of their sums have rows that others lack. Begin "
                "anew, as a fitter does with reset(), or load the state that was saved last."
            )

    def _require_rows(self) -> None:
        self.require_whole()
        if self.count == 0:
            raise ValueError(f"no rows of {self.names} were streamed yet; moments need one.")
