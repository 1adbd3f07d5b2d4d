"""``tk.rank_spans``: which span of layers is worth replacing, from one pass over the data."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from torchkoopman.observe.batches import batches_in
from torchkoopman.observe.costs import CostMeter
from torchkoopman.observe.shapes import DifferentPointsError
from torchkoopman.observe.watch import Watch
from torchkoopman.running.ranked import ranked_spans, ranking_of
from torchkoopman.running.resolutions import resolutions
from torchkoopman.running.shared_spans import SharedSpans
from torchkoopman.running.span_statistics import SpanStatistics
from torchkoopman.running.together import Together

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch
    from torch import nn

    from torchkoopman.koopman.feature_maps import Part
    from torchkoopman.observe.batches import Forward
    from torchkoopman.observe.costs import NetworkCosts
    from torchkoopman.observe.processes import Group
    from torchkoopman.observe.selection import Layers
    from torchkoopman.observe.views import LayoutOption, OutputOption
    from torchkoopman.running.ranked import RankedSpan, SpanRanking, UnrankedSpan


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
        layers: two or more, as for :func:`torchkoopman.attach`. Spans between states of other
            positions, as the stages of a convolutional network have, are listed as unranked; with
            many processes or earlier ``statistics`` such layers are refused.
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
            observables, layers that are constant, or no two layers of the same positions: nothing
            that could be ranked. Where some spans can be, the others are ``unranked``.
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
    watches = [Watch(model, layers, layout, positions, forward, output)]
    unranked: list[UnrankedSpan] = []
    try:
        metered = [_costs(watches[0], first)]
    except DifferentPointsError:
        if together.size > 1 or statistics is not None:
            raise  # statistics are of layers of one resolution
        found = resolutions(watches[0], first[0])
        if not found.watches:
            raise
        watches, unranked = list(found.watches), list(found.unranked)
        metered = [_costs(watch, first) for watch in watches]
    others = [SpanStatistics(observables, ridge=ridge, generator=generator) for _ in watches[1:]]
    shared = SharedSpans(halves, together.processes, watches[0], first)
    every: Iterable[Any] = tqdm(chain(first, batches), "rank", length, disable=not progress)
    for each in (shared.own, *others):
        every = each.split(every)
    watches[0].stream(every, shared.own, list(zip(watches[1:], others, strict=True)))
    costs = [shared.joined(metered[0]), *metered[1:]]
    spans: list[RankedSpan] = []
    for known, each in zip(costs, (halves, *others), strict=True):
        if known is None or not all(half.count for half in each.moments):
            raise ValueError(
                "rank_spans() fits on half of the batches and scores on the other half, so it "
                "needs two batches with rows in them, the first one included; it got "
                f"{each.batches} with {each.rows} rows. Give a loader with more and smaller "
                "batches."
            )
        scored, left = ranked_spans(each, known)
        spans += scored
        unranked += left
    assert costs[0] is not None
    ranking = ranking_of(spans, costs[0], (halves, *others), unranked)
    if progress:
        tqdm.write(str(ranking))
    return ranking


def _costs(watch: Watch, first: Sequence[Any]) -> NetworkCosts | None:
    """What the network costs for a batch, at all positions."""
    with CostMeter(watch.model) as meter:
        replace(watch, positions=None).stream(first, meter)
    return meter.costs
