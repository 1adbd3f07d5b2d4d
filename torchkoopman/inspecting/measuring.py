"""Measures of what one pass left: of each block, and of the whole span, each by itself."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, TypeVar

import torch
from torch.linalg import svdvals

from torchkoopman.fitting.quality import Unexplained
from torchkoopman.inspecting.blocks import InspectedBlock, linear_part
from torchkoopman.inspecting.chosen import Skipped
from torchkoopman.inspecting.ranks import rank_of
from torchkoopman.running.ranked import ranked_span, ranking_of
from torchkoopman.spectra.normality import non_normality
from torchkoopman.topology.betti import subsamples
from torchkoopman.topology.layers import compared

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from torchkoopman.inspecting.gathering import Gathering
    from torchkoopman.inspecting.ranks import Rank
    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.costs import NetworkCosts
    from torchkoopman.running.ranked import RankedSpan, SpanRanking
    from torchkoopman.topology.report import Topology

Found = TypeVar("Found")

_BANDS = 20
"""Subsamples for the band of components; those of loops would take most of the time."""
_LOOPS = 200
"""Points whose loops are counted; the time grows with their cube."""
_EXPECTED = (ValueError, RuntimeError, ArithmeticError, ImportError)
"""What a measure says where it cannot be taken; others are faults."""


class Measures:
    """Takes measures of what one pass left, each by itself; those that fail are noted.

    Args:
        gathering: what listened to the pass.
        costs: of the first batch, where it had rows.
    """

    def __init__(self, gathering: Gathering, costs: NetworkCosts | None) -> None:
        self.layers = gathering.statistics.layers
        self.skipped: list[Skipped] = []
        self._generator = gathering.generator
        self._statistics, self._costs = gathering.statistics, costs
        self._fitter, self._rows = gathering.fitter, gathering.unseen.rows()

    def ranking(self) -> SpanRanking | None:
        """All spans that can be scored, best first."""
        costs, statistics = self._costs, self._statistics
        if costs is None:
            self.skipped.append(
                Skipped("costs and R² of spans", "no row of the first batch counts")
            )
            return None
        if not all(half.count for half in statistics.moments):
            why = "all rows came in one batch, and R² is of batches that were not fitted: give more"
            self.skipped.append(Skipped("R² of spans", why))
            return None
        failed: dict[str, list[str]] = {}
        spans = []
        for start, end in combinations(self.layers, 2):
            try:
                spans.append(ranked_span(statistics, costs, start, end))
            except _EXPECTED as error:
                failed.setdefault(_in_a_line(error), []).append(f"{start} → {end}")
        self.skipped += [Skipped(f"R² of {', '.join(each)}", why) for why, each in failed.items()]
        return ranking_of(spans, costs, [statistics]) if spans else None

    def block(self, start: str, end: str, ranking: SpanRanking | None) -> InspectedBlock:
        """One step from layer to layer."""
        spans: tuple[RankedSpan, ...] = () if ranking is None else ranking.spans
        span = next((each for each in spans if (each.start, each.end) == (start, end)), None)
        where = f"{start} → {end}"
        found = self._attempt(f"map {where}", lambda: self._fitter.between(start, end))
        if found is None:
            return InspectedBlock(start, end, span, None, None, None, None)
        matrix = linear_part(found)
        return InspectedBlock(
            start,
            end,
            span,
            found,
            self._attempt(f"spectrum {where}", found.spectrum),
            self._attempt(f"rank of the map {where}", lambda: rank_of(svdvals(matrix))),
            self._attempt(f"non-normality {where}", lambda: non_normality(matrix, points=15)),
        )

    def surrogate(self) -> Surrogate | None:
        """Of the whole span, judged on rows that it has not seen."""
        where = f"{self.layers[0]} → {self.layers[-1]}"
        found = self._attempt(f"surrogate {where}", lambda: self._fitter.surrogate)
        judged = found and self._attempt(
            f"R² of the surrogate {where}", lambda: self._judged(found)
        )
        return judged or found

    def ranks(self) -> dict[str, Rank]:
        """Layer → rank of its states."""
        found = {}
        for layer in self.layers:
            rank = self._attempt(f"rank of {layer!r}", partial(self._state_rank, layer))
            if rank is not None:
                found[layer] = rank
        return found

    def topology(self, surrogate: Surrogate | None, points: int) -> Topology | None:
        """Components and loops of unseen rows, and of what is predicted of them."""
        if surrogate is None:
            self.skipped.append(
                Skipped("topology", "it is beside the surrogate's, and there is none")
            )
            return None
        return self._attempt("topology", lambda: self._shapes(surrogate, points))

    def _judged(self, surrogate: Surrogate) -> Surrogate:
        """With R² of each layer that it predicts, and that of skipping to the last."""
        first, last, rows = self.layers[0], self.layers[-1], self._rows
        if not rows:
            raise ValueError("no sample was left that the fit had not seen: give ten or more")
        held_out = {
            layer: Unexplained().update(self._predicted(surrogate, layer), rows[layer]).r2
            for layer in self.layers[1:]
            if surrogate.operator.exact_at(surrogate.time(layer))
        }
        baselines = {}
        if rows[first].shape == rows[last].shape:
            baselines["skip"] = Unexplained().update(rows[first], rows[last]).r2
        record = replace(surrogate.record, held_out=held_out, baselines=baselines)
        return surrogate.with_(record=record)

    def _predicted(self, surrogate: Surrogate, layer: str) -> Tensor:
        """Unseen rows at a layer, from the first; by a map to it where the surrogate has none."""
        first = self.layers[0]
        start = self._rows[first][:, None]
        if layer == first:
            return surrogate.decode(surrogate.encode(start, first), first)[:, 0]
        if not surrogate.operator.exact_at(surrogate.time(layer)):
            surrogate = self._fitter.between(first, layer)
        return surrogate.predict(start, first, layer)[:, 0]

    def _shapes(self, surrogate: Surrogate, points: int) -> Topology:
        network = {layer: rows[:points] for layer, rows in self._rows.items()}
        own = {layer: self._predicted(surrogate, layer)[:points] for layer in network}
        times = {layer: surrogate.time(layer) for layer in self.layers}
        rows = len(network[self.layers[0]])
        draws = {0: subsamples(rows, _BANDS, self._generator), 1: ()}
        return compared(network, own, times, draws, _LOOPS)

    def _state_rank(self, layer: str) -> Rank:
        """By standard deviations of a layer's states along their principal axes."""
        both, *others = (
            half.between(layer, layer) for half in self._statistics.moments if half.count
        )
        for other in others:
            both.merge(other)
        variances = torch.linalg.eigvalsh(both.cov("start", "start"))
        return rank_of(variances.clamp(min=0).sqrt())

    def _attempt(self, what: str, measure: Callable[[], Found]) -> Found | None:
        try:
            return measure()
        except _EXPECTED as error:
            self.skipped.append(Skipped(what, _in_a_line(error)))
            return None


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())
