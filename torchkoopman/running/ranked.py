"""What ``tk.rank_spans`` gives back: spans in their order, and those that could not be ranked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING

import torch

from torchkoopman.observe.costs import Cost, cost_of, short
from torchkoopman.tables import Table, Tabular, more

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torchkoopman.observe.costs import NetworkCosts
    from torchkoopman.running.span_statistics import SpanStatistics


_LISTED = 6
"""Spans that could not be ranked for one reason, as many as a line names."""


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
class UnrankedSpan:
    """A span of which nothing can be said."""

    start: str
    """The layer whose output a replacement would take."""
    end: str
    """The layer whose output it would give."""
    why: str
    """What stood against it."""


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
    """Every pair of the chosen layers that can be ranked."""
    network: Cost
    """The whole forward pass."""
    rows: int
    """Number of rows; each was predicted by the fit that had not seen it. Of layers of several
    resolutions those of all of them."""
    statistics: SpanStatistics | None = field(default=None, compare=False, repr=False)
    """The moments that were streamed, to save with ``state_dict()``, to merge, or to go on with;
    None for layers of several resolutions."""
    unranked: tuple[UnrankedSpan, ...] = ()
    """The other pairs, each with the reason."""

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
        below = more(len(self.spans), spans)
        reasons: dict[str, list[str]] = {}
        for each in self.unranked:
            reasons.setdefault(each.why, []).append(f"{each.start} → {each.end}")
        for why, pairs in reasons.items():
            listed = ", ".join(pairs[:_LISTED])
            rest = f" and {len(pairs) - _LISTED} more" if len(pairs) > _LISTED else ""
            below.append(f"not ranked: {listed}{rest}: {why}")
        return Table(head, rows, above, below, text=(0, 1, 2))

    def summary(self, spans: int = 20) -> str:
        """The same as text."""
        return str(self.table(spans))


def ranked_spans(
    halves: SpanStatistics, costs: NetworkCosts
) -> tuple[list[RankedSpan], list[UnrankedSpan]]:
    """All spans that can be scored, and those that cannot.

    Raises:
        ValueError: none can.
    """
    spans, unranked, refused = list[RankedSpan](), list[UnrankedSpan](), list[ValueError]()
    for start, end in combinations(halves.layers, 2):
        try:
            spans.append(ranked_span(halves, costs, start, end))
        except ValueError as error:
            refused.append(error)
            unranked.append(UnrankedSpan(start, end, " ".join(str(error).split())))
    if refused and not spans:
        raise refused[0]
    return spans, unranked


def ranked_span(halves: SpanStatistics, costs: NetworkCosts, start: str, end: str) -> RankedSpan:
    """One span, from what was streamed of its layers.

    Raises:
        ValueError: too few rows, or an end that is constant.
    """
    state = torch.empty(costs.states[start], device="meta")
    replaced = costs.between(start, end), cost_of(halves.replacement(start, end), state)
    return RankedSpan(start, end, *halves.scores(start, end), *replaced)


def ranking_of(
    spans: Sequence[RankedSpan],
    costs: NetworkCosts,
    every: Iterable[SpanStatistics],
    unranked: Sequence[UnrankedSpan] = (),
) -> SpanRanking:
    """Spans of one pass in their order.

    Args:
        spans: those that were scored.
        costs: of the network.
        every: what was streamed, one for each resolution.
        unranked: the others.
    """
    known = list(every)
    rows = sum(halves.rows for halves in known)
    statistics = known[0] if len(known) == 1 else None
    return SpanRanking(tuple(_ranked(spans)), costs.network, rows, statistics, tuple(unranked))


def _ranked(spans: Sequence[RankedSpan]) -> list[RankedSpan]:
    """Best first: the Pareto front of R² and operations saved, then the others."""
    worth = [(round(span.r2, 4), span.saved) for span in spans]
    marked = []
    for span, (r2, saved) in zip(spans, worth, strict=True):
        beaten = any(a >= r2 and b >= saved and (a, b) != (r2, saved) for a, b in worth)
        marked.append(replace(span, best=saved > 0 and not beaten))
    return sorted(marked, key=lambda span: (span.best, round(span.r2, 4), span.saved), reverse=True)
