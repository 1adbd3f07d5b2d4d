"""Streaming, mergeable second moments: the only statistics there are.

Means and covariances of named variables are accumulated batch by batch in float64 with the update
of Chan, Golub & LeVeque (1983). Merging two streams gives what one stream would have given, and
memory does not grow with the number of rows.

Products of a batch's rows are formed in float64, or faster in float32. That errs by up to 1e-7 of
the largest variance in every direction: axes of any scale are fine, oblique directions below 1e-6
of it are uncertain. Regressions use those (their ridge is 1e-9), so float64 is the default.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Pair = tuple[str, str]
PairKind = Literal["ends", "chain", "adjacent", "all"]

_BLOCK, _ROWS = 128, 256
"""Columns of a block of a symmetric product; rows that float32 sums before float64 takes over."""


def layer_pairs(layers: Sequence[str], kind: PairKind) -> list[Pair]:
    """The pairs of variables whose covariances a fit over ``layers`` needs.

    Every layer with itself, and across layers: the first with the last (``"ends"``); besides that
    each with the next (``"chain"``), also with the first and with the last (``"adjacent"``); or all
    (``"all"``).
    """
    own = [(layer, layer) for layer in layers]
    from_first = [(layers[0], later) for later in layers[1:]]
    to_last = [(earlier, layers[-1]) for earlier in layers[:-1]]
    match kind:
        case "ends":
            return [*own, *to_last[:1]]
        case "chain":
            return [*own, *dict.fromkeys([*pairwise(layers), *to_last[:1]])]
        case "adjacent":
            return [*own, *dict.fromkeys([*pairwise(layers), *from_first, *to_last])]
        case "all":
            later = ((a, b) for depth, a in enumerate(layers) for b in layers[depth + 1 :])
            return [*own, *later]
    raise ValueError(f"pairs={kind!r} is unknown; choose 'ends', 'chain', 'adjacent' or 'all'.")


class Moments:
    """Count, means and covariances of named variables over a stream of rows.

    Covariances exist for the pairs asked for; they are normalised by the row count.

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
        self.count = 0
        self._means: dict[str, Tensor] = {}
        self._scatters: dict[Pair, Tensor] = {}

    @torch.no_grad()
    def update(self, values: Mapping[str, Tensor]) -> Self:
        """Take in one batch.

        Args:
            values: variable → rows, ``(rows, features)``; row i of all of them is the same point.

        Raises:
            ValueError: a variable's width differs from that of earlier batches.
        """
        batch = {name: values[name].detach() for name in self.names}
        if (rows := len(batch[self.names[0]])) == 0:
            return self
        self._allocate({name: value.shape[1] for name, value in batch.items()}, values)
        parts = {name: self._centred(name, value) for name, value in batch.items()}
        with nullcontext() if self.precision == torch.float64 else _exact_float32():
            for (a, b), scatter in self._scatters.items():
                _add_product(scatter, parts[a][1], parts[b][1], symmetric=a == b)
        self.count += rows
        for name, (mean, _) in parts.items():
            self._means[name] += (mean - self._means[name]) * (rows / self.count)
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
        tensors = [*self._means.values(), *self._scatters.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def merge(self, other: Moments) -> Self:
        """Take in another stream of the same pairs, as if its rows had come here."""
        if other.pairs != self.pairs:
            raise ValueError(f"cannot merge moments of {other.pairs} into moments of {self.pairs}.")
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
            rest._scatters[a, b] = scatter - other._scatters[a, b] - between
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
            image._scatters[a, b] = weights[a] @ self._scatters[a, b] @ weights[b].T
        return image

    def between(self, start: str, end: str) -> Moments:
        """The moments of two variables alone, renamed ``"start"`` and ``"end"``."""
        self._require_rows()
        pair = Moments(layer_pairs(("start", "end"), "ends"))
        names = {"start": start, "end": end}
        pair.count = self.count
        pair._means = {role: self._means[name].clone() for role, name in names.items()}
        pair._scatters = {(a, b): self.cov(names[a], names[b]) * self.count for a, b in pair.pairs}
        return pair

    def sync(self, group: dist.ProcessGroup | None = None) -> Self:
        """Merge the streams of all processes, in place, so that every process holds them all.

        Shards may be uneven; a process without rows takes part. Without an initialised
        ``torch.distributed`` this does nothing.

        Raises:
            ValueError: processes hold variables of different widths.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return self
        shapes: list[dict[str, int]] = [{} for _ in range(dist.get_world_size(group))]
        dist.all_gather_object(shapes, {n: len(m) for n, m in self._means.items()}, group=group)
        known = [shape for shape in shapes if shape]
        if not known:
            return self
        if any(shape != known[0] for shape in known):
            raise ValueError(f"processes stream variables of different widths: {known}.")
        device = next(iter(self._means.values()), torch.empty(0, device=_device(group))).device
        self._allocate(known[0], {name: torch.empty(0, device=device) for name in self.names})
        count = torch.tensor(float(self.count), dtype=torch.float64, device=device)
        dist.all_reduce(count, group=group)
        means = {name: self._means[name] * (self.count / count) for name in self.names}
        for mean in means.values():
            dist.all_reduce(mean, group=group)
        for (a, b), scatter in self._scatters.items():
            scatter.addr_(self._means[a] - means[a], self._means[b] - means[b], alpha=self.count)
            dist.all_reduce(scatter, group=group)
        self._means, self.count = means, int(count)
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Everything as named float64 tensors, for saving."""
        return {
            "count": torch.tensor(float(self.count), dtype=torch.float64),
            **{f"mean/{name}": mean for name, mean in self._means.items()},
            **{f"scatter/{a}/{b}": scatter for (a, b), scatter in self._scatters.items()},
        }

    def load(self, tensors: Mapping[str, Tensor]) -> Self:
        """The inverse of :meth:`tensors`."""
        self.count = int(tensors["count"])
        if self.count:
            self._means = {name: tensors[f"mean/{name}"] for name in self.names}
            self._scatters = {(a, b): tensors[f"scatter/{a}/{b}"] for a, b in self.pairs}
        return self

    def _centred(self, name: str, value: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of a batch; and its centred rows, with one more below, in the precision asked."""
        (count, width), wide = value.shape, torch.promote_types(value.dtype, self.precision)
        # Rows a power of two apart would evict each other from the cache: leave a gap. In place and
        # step by step, for mixed dtypes in one operation are several times slower.
        rows = value.new_empty(count + 1, width + 8, dtype=wide)[:, :width]
        rows[:-1] = value
        mean = rows[:-1].double().sum(0) / count
        rows[:-1] -= mean.to(wide)
        # Chan's mean correction is one more row of the product.
        weight = (self.count * count / (self.count + count)) ** 0.5
        rows[-1] = weight * (mean - self._means[name])
        return mean, rows.to(self.precision)

    def _allocate(self, widths: Mapping[str, int], like: Mapping[str, Tensor]) -> None:
        if not self._means:
            zeros = partial(torch.zeros, dtype=torch.float64, device=like[self.names[0]].device)
            self._means = {name: zeros(widths[name]) for name in self.names}
            self._scatters = {(a, b): zeros(widths[a], widths[b]) for a, b in self.pairs}
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


def _add_product(scatter: Tensor, left: Tensor, right: Tensor, symmetric: bool) -> None:
    """Add ``leftᵀ right``; of a symmetric one, blocks below the diagonal are copied from above."""
    columns = _BLOCK if symmetric else max(1, left.shape[1])
    rows = len(left) if left.dtype == scatter.dtype else _ROWS
    for start in range(0, left.shape[1], columns):
        first, stop = (start if symmetric else 0), start + columns
        block = scatter[start:stop, first:]
        sides = torch.split(left[:, start:stop], rows), torch.split(right[:, first:], rows)
        for a, b in zip(*sides, strict=True):
            if left.dtype == scatter.dtype:
                block.addmm_(a.T, b)
            else:
                block += a.T @ b
        if symmetric:
            scatter[stop:, start:stop] = block[:, columns:].T


@contextmanager
def _exact_float32() -> Iterator[None]:
    """Within it a float32 product is one, also where the user lets networks round to TF32."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    allowed = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, allowed, strict=True):
            backend.fp32_precision = precision


def _device(group: dist.ProcessGroup | None) -> torch.device:
    """Where a process without rows of its own takes part in a reduction."""
    nccl = dist.get_backend(group) == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
