"""``tk.rank_spans``: which span of layers is worth replacing, from one pass over the data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain, combinations, islice
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from tqdm.auto import tqdm

from torchkoopman.observe.batches import batches_in
from torchkoopman.observe.costs import Cost, CostMeter, cost_of, short
from torchkoopman.observe.watch import Watch
from torchkoopman.running.shared_spans import SharedSpans
from torchkoopman.running.span_statistics import SpanStatistics
from torchkoopman.running.together import Together
from torchkoopman.tables import Table, Tabular, more

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torchkoopman.koopman.feature_maps import Part
    from torchkoopman.observe.batches import Forward
    from torchkoopman.observe.costs import NetworkCosts
    from torchkoopman.observe.processes import Group
    from torchkoopman.observe.selection import Layers
    from torchkoopman.observe.views import LayoutOption, OutputOption


@dataclass(frozen=True)
class RankedSpan:
    """One span, from a layer's output to a later layer's, and what its replacement would be."""

    start: str
    """The layer whose output the replacement takes."""
    end: str
    """The layer whose output it gives."""
    r2: float
    """Share of the variance of the end's state that the closed form explains, on rows it was not
    fitted on: 1 is perfect, 0 no better than the mean, negative worse than the mean."""
    skip: float | None
    """R² of taking the start's state for the end's; None where widths differ. In residual networks
    it is high, and only the rest up to :attr:`r2` is due to the operator."""
    removed: Cost
    """The cost of the modules between the two outputs."""
    added: Cost
    """The cost of the folded closed form in their place."""
    best: bool = False
    """Whether it saves operations, and no other span explains as much and saves more."""

    @property
    def saved(self) -> float:
        """Operations that the swap saves per sample; negative if it costs some."""
        return self.removed.operations - self.added.operations


@dataclass(frozen=True)
class SpanRanking(Tabular):
    """All spans between the chosen layers, best first; print it.

    Spans trade R² against operations saved. First come those that no other span beats in both
    (marked ``*``: the Pareto front), from the largest R² to the most operations saved; then the
    others by R². R² is compared as printed, to four decimals.

    Example:
        >>> ranking = tk.rank_spans(model, train.loader(500), layers, progress=False)
        >>> print(ranking.summary(1))
        10 spans; R² on 5000 rows, each held out once
          start  end       R²  skip R²       parameters       operations   ratio  saved
        * ...
        … and 9 more
    """

    spans: tuple[RankedSpan, ...]
    """Every pair of the chosen layers."""
    network: Cost
    """The whole forward pass."""
    rows: int
    """Number of rows; each was predicted by the fit that had not seen it."""
    statistics: SpanStatistics | None = field(default=None, compare=False, repr=False)
    """The moments that were streamed, to save with ``state_dict()``, to merge, or to go on with."""

    def table(self, spans: int = 20) -> Table:
        """The leading spans; costs are per sample, ``saved`` is a share of the whole network's."""
        whole = self.network.operations or float("inf")
        rows = []
        for span in self.spans[:spans]:
            out, new = span.removed, span.added
            rows.append(
                [
                    "*" if span.best else "",
                    span.start,
                    span.end,
                    f"{span.r2:.4f}",
                    "" if span.skip is None else f"{span.skip:.4f}",
                    f"{short(out.parameters)} → {short(new.parameters)}",
                    f"{short(out.operations)} → {short(new.operations)}",
                    f"{out.operations / new.operations:.1f}×",
                    f"{span.saved / whole:.1%}",
                ]
            )
        head = ["", "start", "end", "R²", "skip R²", "parameters", "operations", "ratio", "saved"]
        above = [f"{len(self.spans)} spans; R² on {self.rows} rows, each held out once"]
        return Table(head, rows, above, more(len(self.spans), spans), text=(0, 1, 2))

    def summary(self, spans: int = 20) -> str:
        """The same as text."""
        return str(self.table(spans))


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
    statistics: SpanStatistics | None = None,
    progress: bool = True,
    group: Group = None,
) -> SpanRanking:
    """Held-out R² and costs of every span between the chosen layers, from one pass over the loader.

    Even and odd batches go into separate moments. The closed form of every span is fitted on one
    half and scored on the other, and the other way round; R² is that of all rows together, each
    predicted by the fit that has not seen it. No activation is kept. Costs are measured in one more
    forward pass on the first batch. The model runs in eval mode without gradients and is given back
    as it was.

    The closed form is the best affine map of the observables of the start's state. ``tk.fit`` finds
    it too between layers of one width; where widths differ it keeps only as many directions as both
    have. Memory: about ``8 L² d p`` bytes for L layers of width d with p observables, d among them.

    Example:
        >>> ranking = tk.rank_spans(model, train.loader(500), layers, progress=False)
        >>> best = ranking.spans[0]  # explains most of those that save operations
        >>> best.best, best.r2 > 0.9, best.saved > 0
        (True, True, True)

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
        statistics: of an earlier ranking, with its observables and ridge; the rows of this one are
            added to them. With many processes give the same ones to all; their rows count once.
        progress: show a bar and print the table; with many processes, in the first one.
        group: the processes of ``torch.distributed`` that rank together, each with its own shard in
            ``loader``, as for :func:`torchkoopman.fit`. All get the ranking that one process would
            get from the batches of the first, then those of the second, and so on.

    Raises:
        RuntimeError: torchrun started many processes that are in no process group, or one died.
        ValueError: fewer than two layers or batches, no more rows in half of the batches than
            observables, a layer that is constant, or layers whose positions differ.
    """
    together = Together(group, "rank_spans()")
    progress = progress and together.leads
    halves = SpanStatistics(observables, ridge=ridge, generator=generator)
    if statistics is not None:
        if halves._options() != SpanStatistics()._options():
            raise ValueError(
                "statistics= have the observables and the ridge that they were made with; leave "
                "observables= and ridge= out."
            )
        halves = statistics
    length, batches = batches_in(loader), iter(loader)
    first = list(islice(batches, 1))
    with CostMeter(model) as meter:
        Watch(model, layers, layout, None, forward, output).stream(first, meter)
    watch = Watch(model, layers, layout, positions, forward, output)
    shared = SharedSpans(halves, together.processes, watch, first)
    every = tqdm(chain(first, batches), "rank", length, disable=not progress)
    watch.stream(shared.own.split(every), shared.own)
    costs = shared.joined(meter.costs)
    if costs is None or not all(half.count for half in halves.moments):
        raise ValueError(
            "rank_spans() fits on half of the batches and scores on the other half, so it needs "
            f"two batches with rows in them, the first one included; it got {halves.batches} with "
            f"{halves.rows} rows. Give a loader with more and smaller batches."
        )
    spans = [ranked_span(halves, costs, *ends) for ends in combinations(halves.layers, 2)]
    ranking = ranking_of(spans, costs, halves)
    if progress:
        tqdm.write(str(ranking))
    return ranking


def ranked_span(halves: SpanStatistics, costs: NetworkCosts, start: str, end: str) -> RankedSpan:
    """One span, from what was streamed of its layers.

    Raises:
        ValueError: too few rows, or an end that is constant.
    """
    state = torch.empty(costs.states[start], device="meta")
    replaced = costs.between(start, end), cost_of(halves.replacement(start, end), state)
    return RankedSpan(start, end, *halves.scores(start, end), *replaced)


def ranking_of(
    spans: Sequence[RankedSpan], costs: NetworkCosts, halves: SpanStatistics
) -> SpanRanking:
    """Spans of one pass in their order."""
    return SpanRanking(tuple(_ranked(spans)), costs.network, halves.rows, halves)


def _ranked(spans: Sequence[RankedSpan]) -> list[RankedSpan]:
    """Best first: the Pareto front of R² and operations saved, then the others."""
    worth = [(round(span.r2, 4), span.saved) for span in spans]
    marked = []
    for span, (r2, saved) in zip(spans, worth, strict=True):
        beaten = any(a >= r2 and b >= saved and (a, b) != (r2, saved) for a, b in worth)
        marked.append(replace(span, best=saved > 0 and not beaten))
    return sorted(marked, key=lambda span: (span.best, round(span.r2, 4), span.saved), reverse=True)
