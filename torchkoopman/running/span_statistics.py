"""What ``rank_spans`` keeps of a stream, and what that says of a span."""

from __future__ import annotations

import copy
from itertools import combinations
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from torchkoopman.fitting.calibration import require_rows, same_layers
from torchkoopman.fitting.resuming import Resumable, same_calibration
from torchkoopman.fitting.snapshots import fingerprint
from torchkoopman.koopman.feature_maps import as_parts
from torchkoopman.koopman.folding import Encoding, Folded
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.koopman.regression import ridge_map
from torchkoopman.koopman.span import Span
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.processes import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torchkoopman.koopman.feature_maps import Affine, Part
    from torchkoopman.observe.pairs import Pair
    from torchkoopman.observe.trajectory import Trajectory

_NULL = 1e-24
"""Share of a state's second moment below which its variance is rounding."""


class SpanStatistics(Resumable):
    """What :func:`torchkoopman.rank_spans` has streamed; pass it to another call to add rows.

    It holds moments of the layers' states and observables, for odd and even batches apart.
    Statistics of several streams can be merged if they were calibrated with the same sample before.

    Example:
        >>> statistics = tk.SpanStatistics()
        >>> for data in (train, test):
        ...     ranking = tk.rank_spans(
        ...         model, data.loader(500), layers, statistics=statistics, progress=False
        ...     )
        >>> ranking.rows  # 5000 of each
        10000

    Args:
        observables: parts beside the state, as for :func:`torchkoopman.rank_spans`.
        ridge: relative to the mean variance.
        generator: draws the random features; None for one seeded with 0.
    """

    def __init__(
        self,
        observables: Part | Sequence[Part] = (),
        *,
        ridge: float = 1e-7,
        generator: torch.Generator | None = None,
    ) -> None:
        self.layers: tuple[str, ...] = ()
        self.moments = (Moments(()), Moments(()))
        self.batches = 0
        self._parts, self._ridge = as_parts(observables), ridge
        self.contextual = any(part.contextual for part in self._parts)
        self._generator = torch.Generator().manual_seed(0) if generator is None else generator
        self._scales: dict[str, tuple[Tensor, Tensor]] = {}
        self._dictionaries: dict[str, Dictionary] = {}

    @property
    def rows(self) -> int:
        """Rows of both halves."""
        return round(sum(half.count for half in self.moments))

    def split(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Pass batches on, counting them: the forward passes of one batch stay together."""
        for batch in batches:
            self.batches += 1
            yield batch

    def calibrate(self, sample: Trajectory) -> Self:
        """Fix layers, scales and random features by a sample, which does not enter the moments.

        Raises:
            RuntimeError: that was done already.
        """
        if self.layers:
            raise RuntimeError("these statistics are calibrated already; make new ones.")
        with torch.no_grad():
            self._open(sample)
        return self

    @torch.no_grad()
    def update(self, trajectory: Trajectory) -> Self:
        """Take a trajectory into the half of its batch."""
        if not self.layers:
            self._open(trajectory)
        same_layers(self.layers, trajectory)
        rows = trajectory.rows()
        for layer, (mean, scale) in self._scales.items():
            state = (trajectory.states[layer] - mean) / scale
            observed = self._dictionaries[layer].encode(state, trajectory.mask)
            rows[_seen(layer)] = trajectory.flatten(observed[..., 1:])
        self.moments[self.batches % 2].update(rows)
        return self

    def scores(self, start: str, end: str) -> tuple[float, float | None]:
        """R² of the closed form, each half predicted by the other's fit, and R² of the skip.

        Raises:
            ValueError: too few rows, or an end that is constant.
        """
        dictionary = self._dictionaries[start]
        remedy = " in either half, use fewer observables, or fit the span by tk.fit with rank="
        require_rows(min(half.count for half in self.moments), dictionary.latent, remedy)
        pairs = [half.between(_seen(start), end) for half in self.moments]
        both = Moments(pairs[0].pairs).merge(pairs[0]).merge(pairs[1])
        spread = both.cov("end", "end").trace().item()
        if spread <= _NULL * both.second("end", "end").trace().item():
            raise ValueError(
                f"layer {end!r} is constant over all {self.rows} rows, so there is nothing to "
                "explain. Choose other layers."
            )
        r2 = 1 - _error(pairs, [ridge_map(pair, self._ridge) for pair in pairs[::-1]]) / spread
        if dictionary.features != both.features("end"):
            return r2, None
        mean, scale = (value.double() for value in self._scales[start])
        still = scale * torch.eye(dictionary.features, dictionary.latent - 1).to(scale)
        return r2, 1 - _error(pairs, [(still, mean), (still, mean)]) / spread

    def replacement(self, start: str, end: str) -> nn.Module:
        """The folded closed form between two layers, without its values."""
        dictionary, width = self._dictionaries[start], self.moments[0].features(end)
        linear = nn.Linear(dictionary.latent - 1, width, device="meta")
        return Folded(Encoding(copy.deepcopy(dictionary)), linear, nn.Identity()).to("meta")

    def _options(self) -> dict[str, Any]:
        observables = [[type(part).__name__, part.config()] for part in self._parts]
        digest = fingerprint(*self._parts)
        return {"ridge": self._ridge, "observables": observables, "digest": digest}

    def _layers(self) -> tuple[str, ...]:
        return self.layers

    def _state(self) -> dict[str, Any]:
        return {
            "layers": self.layers,
            "batches": self.batches,
            "moments": [half.tensors() for half in self.moments],
            "scales": self._scales,
            "dictionaries": {n: dict(d.state_dict()) for n, d in self._dictionaries.items()},
            "draws": self._generator.get_state(),
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.layers, self.batches = tuple(state["layers"]), state["batches"]
        first, second = (Moments(self._pairs()).load(half) for half in state["moments"])
        self.moments, self._scales = (first, second), state["scales"]
        self._dictionaries = {}
        for layer, tensors in state["dictionaries"].items():
            mean = self._scales[layer][0]
            dictionary = Dictionary(copy.deepcopy(self._parts)).build(len(mean), torch.Generator())
            self._dictionaries[layer] = dictionary.to(mean)
            self._dictionaries[layer].load_state_dict(tensors)
        self._generator.set_state(state["draws"])

    def _merge(self, other: Self) -> None:
        if not self.layers:
            self.layers = other.layers
            self.moments = Moments(self._pairs()), Moments(self._pairs())
            self._scales, self._dictionaries = copy.deepcopy((other._scales, other._dictionaries))
        same_calibration(self._digests(), other._digests())
        for mine, theirs in zip(self.moments, other.moments, strict=True):
            mine.merge(theirs)
        self.batches += other.batches

    def _emptied(self) -> Self:
        """The same layers, scales and random features, and no rows."""
        fresh = copy.copy(self)
        fresh.batches, fresh.moments = 0, (Moments(self._pairs()), Moments(self._pairs()))
        return fresh

    def _digests(self) -> list[str]:
        """Digests of the scales and dictionary of each layer."""
        drawn = self._dictionaries.items()
        return [digest(*self._scales[n], *d.state_dict().values()) for n, d in drawn]

    def _open(self, trajectory: Trajectory) -> None:
        """Fix layers, scales and random features: observables take coordinates of mean square 1."""
        self.layers = Span.of(trajectory).layers
        for layer in self.layers[:-1]:
            rows = trajectory.flatten(trajectory.states[layer])
            mean, parts = rows.mean(0).nan_to_num(), copy.deepcopy(self._parts)
            scale = (rows - mean).double().square().mean().sqrt().to(rows)
            self._scales[layer] = mean, torch.where(scale > 0, scale, 1)
            dictionary = Dictionary(parts).build(rows.shape[1], self._generator)
            self._dictionaries[layer] = dictionary.to(rows)
        self.moments = Moments(self._pairs()), Moments(self._pairs())

    def _pairs(self) -> list[Pair]:
        """Variables whose covariances are needed."""
        own = [(name, name) for layer in self.layers for name in (layer, _seen(layer))][:-1]
        return [*own, *((_seen(start), end) for start, end in combinations(self.layers, 2))]


def _seen(layer: str) -> str:
    """The variable that holds a layer's observables."""
    return f"ψ {layer}"


def _error(pairs: Sequence[Moments], maps: Sequence[Affine]) -> float:
    """E|weight start + bias - end|² over the rows of all pairs, each with a map of its own."""
    total = 0.0
    for pair, (weight, bias) in zip(pairs, maps, strict=True):
        shift = weight @ pair.mean("start") + bias - pair.mean("end")
        varied = weight @ pair.cov("start", "start") - 2 * pair.cov("end", "start")
        within = pair.cov("end", "end").trace() + (varied * weight).sum()
        total += pair.count * (within.clamp(min=0) + shift.square().sum()).item()
    return total / sum(pair.count for pair in pairs)
