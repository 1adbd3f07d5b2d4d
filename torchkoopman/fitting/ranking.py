"""``tk.rank_spans``: which span of layers is worth replacing, from one pass over the data."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from itertools import chain, combinations, islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from torchkoopman.fitting.calibration import require_rows, same_layers
from torchkoopman.koopman.folding import Encoding, Folded
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.koopman.parts import as_parts
from torchkoopman.koopman.regression import ridge_map
from torchkoopman.koopman.span import Span
from torchkoopman.observe.batches import batches_in
from torchkoopman.observe.costs import Cost, CostMeter, cost_of, short
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.processes import alone
from torchkoopman.observe.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torchkoopman.koopman.parts import Affine, Part
    from torchkoopman.observe.batches import Forward
    from torchkoopman.observe.selection import Layers
    from torchkoopman.observe.trajectory import Trajectory
    from torchkoopman.observe.views import LayoutOption, OutputOption

_NULL = 1e-24
"""Share of a state's second moment below which its variance is rounding."""


@dataclass(frozen=True)
class RankedSpan:
    """One span, from a layer's output to a later layer's, and what its replacement would be."""

    start: str
    """The layer whose output the replacement takes."""
    end: str
    """The layer whose output it gives."""
    r2: float
    """Share of the variance of the end's state that the closed form explains, on rows it was not
    fitted on: 1 is perfect, 0 no better than the mean, negative worse than that."""
    skip: float | None
    """The same for taking the start's state as the end's; None where widths differ. Residual
    networks make it high, and only what lies above it is the operator's doing."""
    removed: Cost
    """What runs between the two outputs today."""
    added: Cost
    """What the folded closed form would take."""
    best: bool = False
    """It saves operations, and no other span explains as much and saves more."""

    @property
    def saved(self) -> float:
        """Operations that the swap saves per sample; negative if it costs some."""
        return self.removed.operations - self.added.operations


@dataclass(frozen=True)
class SpanRanking:
    """All spans between the chosen layers, best first; print it.

    What a span is worth has two sides, R² and operations saved, and how much of one buys how much
    of the other is the user's to say. So first come the spans that are best at some price (marked
    ``*``: the Pareto front), from the most faithful to the one that saves most; then the others by
    R². R² is compared as printed, to four decimals.
    """

    spans: tuple[RankedSpan, ...]
    """Every pair of the chosen layers."""
    network: Cost
    """The whole forward pass."""
    rows: int
    """Rows seen; each was predicted by the fit that had not seen it."""

    def summary(self, spans: int = 20) -> str:
        """A table of the leading spans; costs per sample, ``saved`` of the whole network's."""
        start = max(5, *(len(span.start) for span in self.spans))
        end = max(3, *(len(span.end) for span in self.spans))
        head = f"{len(self.spans)} spans; R² on {self.rows} rows, each held out once"
        columns = f"{'R²':>8} {'skip R²':>8} {'parameters':>16} {'operations':>16} {'ratio':>7}"
        lines = [head, f"  {'start':{start}}  {'end':{end}} {columns} {'saved':>6}"]
        whole = self.network.operations or float("inf")
        for span in self.spans[:spans]:
            skip = "" if span.skip is None else f"{span.skip:.4f}"
            out, new = span.removed, span.added
            parameters = f"{short(out.parameters)} → {short(new.parameters)}"
            operations = f"{short(out.operations)} → {short(new.operations)}"
            lines.append(
                f"{'*' if span.best else ' '} {span.start:{start}}  {span.end:{end}} "
                f"{span.r2:8.4f} {skip:>8} {parameters:>16} {operations:>16} "
                f"{out.operations / new.operations:6.1f}× {span.saved / whole:6.1%}"
            )
        if len(self.spans) > spans:
            lines.append(f"… and {len(self.spans) - spans} more")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()


def rank_spans(
    model: nn.Module,
    loader: Iterable[Any],
    layers: Layers,
    *,
    observables: Part | Sequence[Part] = (),
    ridge: float = 1e-7,
    layout: LayoutOption | None = None,
    output: OutputOption | None = None,
    positions: int | None = None,
    forward: Forward | None = None,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> SpanRanking:
    """Held-out R² and costs of every span between the chosen layers, from one pass over the loader.

    Even and odd batches go into moments of their own. The closed form of every span is fitted on
    one half and scored on the other's moments, and the other way round; R² is of all rows together,
    each predicted by the fit that has not seen it. No activation is kept. Costs are those of one
    more forward pass on the first batch (``torchkoopman.observe.costs`` says what counts). The
    model runs in eval mode without gradients and is given back as it was.

    The closed form is the best affine map of the observables of the start's state. ``tk.fit`` finds
    it too between layers of one width; where widths differ it keeps only as many directions as both
    have. Memory: about ``8 L² d p`` bytes for L layers of width d with p observables, d among them.

    Args:
        model: any eager module.
        loader: batches as for :func:`torchkoopman.fit`, two or more; shuffled, so that both halves
            are alike.
        layers: two or more, as for :func:`torchkoopman.attach`. Their states need the same
            positions: rank the stages of a network that changes its resolution one by one.
        observables: parts beside the state, as for :class:`torchkoopman.EDMDFitter`, scaled by the
            first batch; none by default, which makes the closed form a ridge map.
        ridge: relative to the mean variance.
        layout: einops pattern of the layers' outputs, as for :func:`torchkoopman.attach`.
        output: which tensor is a layer's state, likewise.
        positions: take so many random positions of each sample instead of all.
        forward: how to call the model on a batch, if not as :func:`torchkoopman.fit` does.
        generator: draws the random features; None for one seeded with 0.
        progress: show a bar and print the table.

    Raises:
        RuntimeError: many processes, of which each would rank by its shard.
        ValueError: fewer than two layers or batches, no more rows in half of the batches than
            observables, a layer that is constant, or layers whose positions differ.
    """
    alone("rank_spans()", "It ranks by its own shard alone: call it before they are started.")
    halves = _Halves(as_parts(observables), ridge, generator)
    length, batches = batches_in(loader), iter(loader)
    first = list(islice(batches, 1))
    with CostMeter(model) as meter:
        Watch(model, layers, layout, None, forward, output).stream(first, meter)
    every = tqdm(chain(first, batches), "rank", length, disable=not progress)
    Watch(model, layers, layout, positions, forward, output).stream(halves.split(every), halves)
    costs = meter.costs
    if costs is None or not all(half.count for half in halves.moments):
        raise ValueError(
            "rank_spans() fits on half of the batches and scores on the other half, so it needs "
            f"two batches with rows in them, the first one included; it got {halves.batches} with "
            f"{halves.rows} rows. Give a loader of more, smaller batches."
        )
    spans = []
    for start, end in combinations(halves.layers, 2):
        state = torch.empty(costs.states[start], device="meta")
        replaced = costs.between(start, end), cost_of(halves.replacement(start, end), state)
        spans.append(RankedSpan(start, end, *halves.scores(start, end), *replaced))
    ranking = SpanRanking(tuple(_ranked(spans)), costs.network, halves.rows)
    if progress:
        tqdm.write(str(ranking))
    return ranking


def _ranked(spans: Sequence[RankedSpan]) -> list[RankedSpan]:
    """Best first: the Pareto front of R² and operations saved, then the others."""
    worth = [(round(span.r2, 4), span.saved) for span in spans]
    marked = []
    for span, (r2, saved) in zip(spans, worth, strict=True):
        beaten = any(a >= r2 and b >= saved and (a, b) != (r2, saved) for a, b in worth)
        marked.append(replace(span, best=saved > 0 and not beaten))
    return sorted(marked, key=lambda span: (span.best, round(span.r2, 4), span.saved), reverse=True)


class _Halves:
    """Moments of odd and of even batches: of the layers' states and of their observables."""

    def __init__(self, parts: list[Part], ridge: float, random: torch.Generator | None) -> None:
        self.layers: tuple[str, ...] = ()
        self.moments = (Moments(()), Moments(()))
        self.batches = 0
        self._parts, self._ridge = parts, ridge
        self.contextual = any(part.contextual for part in parts)
        self._generator = torch.Generator().manual_seed(0) if random is None else random
        self._scales: dict[str, tuple[Tensor, Tensor]] = {}
        self._dictionaries: dict[str, Dictionary] = {}

    @property
    def rows(self) -> int:  # of both halves
        return round(sum(half.count for half in self.moments))

    def split(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Pass batches on, counting them: the forward passes of one batch stay together."""
        for self.batches, batch in enumerate(batches, 1):
            yield batch

    @torch.no_grad()
    def update(self, trajectory: Trajectory) -> None:
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

    def scores(self, start: str, end: str) -> tuple[float, float | None]:
        """R² of the closed form, each half predicted by the other's fit, and R² of the skip."""
        dictionary, remedy = self._dictionaries[start], " in either half, or use fewer observables"
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

    def _open(self, trajectory: Trajectory) -> None:
        """Fix layers, scales and random features: observables take coordinates of mean square 1."""
        self.layers = Span.of(trajectory).layers
        for layer in self.layers[:-1]:
            rows = trajectory.flatten(trajectory.states[layer])
            mean, parts = rows.mean(0).nan_to_num(), copy.deepcopy(self._parts)
            scale = (rows - mean).square().mean().sqrt()
            self._scales[layer] = mean, torch.where(scale > 0, scale, 1)
            dictionary = Dictionary(parts).build(rows.shape[1], self._generator)
            self._dictionaries[layer] = dictionary.to(rows)
        own = [(name, name) for layer in self.layers for name in (layer, _seen(layer))][:-1]
        pairs = [*own, *((_seen(start), end) for start, end in combinations(self.layers, 2))]
        self.moments = Moments(pairs), Moments(pairs)


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
