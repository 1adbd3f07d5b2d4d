"""The result of ``tk.inspect``: one look at a network's blocks, as one printable value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchkoopman.inspecting.panels import add_blocks, add_whole
from torchkoopman.reporting import report
from torchkoopman.showing.dispatch import series_of
from torchkoopman.showing.tables import table_series
from torchkoopman.tables import Table, Tabular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torchkoopman_panels import Document, Series

    from torchkoopman.inspecting.blocks import InspectedBlock
    from torchkoopman.inspecting.chosen import Skipped
    from torchkoopman.inspecting.ranks import Rank
    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.running.ranked import SpanRanking
    from torchkoopman.topology.report import Topology

_SPANS = 3
"""Spans that are listed as worth replacing."""


@dataclass(frozen=True)
class Inspection(Tabular):
    """What one pass over the data says of a network's blocks; print it.

    Example:
        >>> inspection = tk.inspect(model, train.loader(500), progress=False)
        >>> print(inspection)
        5 blocks, '1' … '9' (5 × (Linear, Tanh)), the longest run of siblings
        5000 rows; ...
    """

    model: str
    """Its class."""
    layers: tuple[str, ...]
    """Whose outputs are the states, in order of depth."""
    found: str
    """How they were found, in a sentence."""
    rows: int
    """Rows that were streamed."""
    unseen: int
    """Rows on which the surrogate of the whole span was judged; no fit has seen them."""
    blocks: tuple[InspectedBlock, ...]
    """From each layer to the next."""
    surrogate: Surrogate | None
    """Of the whole span, by DMD; its ``record.held_out`` is on unseen rows."""
    ranking: SpanRanking | None
    """All spans between the layers: R² on rows not fitted, skip R², and what a swap would save."""
    ranks: Mapping[str, Rank]
    """Layer → rank of its states."""
    topology: Topology | None
    """Components and loops of the unseen rows, layer by layer, beside the surrogate's."""
    skipped: tuple[Skipped, ...]
    """What was not measured, and why."""
    notes: tuple[str, ...] = ()
    """What limits these numbers, one sentence each."""

    def table(self, *, skipped: bool = True) -> Table:
        """A row for each block; ``skipped`` says whether to list below what was not measured."""
        head = ["from", "to", "R²", "skip R²", "of the change", "trusted", "largest |λ|"]
        head += ["rank of states", "rank of map", "non-normality", "saves"]
        rows = [self._row(block) for block in self.blocks]
        below = self._below()
        if skipped:
            below += [f"skipped: {each.what}: {each.why}" for each in self.skipped]
        return Table(head, rows, [self.found, *self.notes], below, text=(0, 1))

    def summary(self) -> str:
        """The same as text."""
        return str(self.table())

    def report(self, path: str | Path, *, title: str = "") -> Path:
        """Write one HTML file with the blocks on a slider, as :func:`torchkoopman.report` does.

        Args:
            path: of the file, ending in ``.html``; one that is there is replaced.
            title: what the page is called; by default the model's class.

        Returns:
            The path.

        Raises:
            ValueError: another suffix.
            OSError: the file cannot be written.
        """
        return report(path, self, title=title or self.model)

    def add_to(self, document: Document, run: str) -> None:
        """Add the blocks, the whole span and the tables to what a page shows, as one run."""
        add_blocks(document, run, self.layers, self.blocks, self._of_all())
        if self.surrogate is not None:
            add_whole(document, run, self.surrogate)

    def _of_all(self) -> Iterator[Series]:
        """Tables and shapes, which belong to no block."""
        yield table_series("1 blocks", "Blocks", self.table(skipped=False))
        if self.ranking is not None:
            yield table_series("2 spans", "Spans worth replacing", self.ranking.table())
        if self.skipped:
            rows = [[each.what, each.why] for each in self.skipped]
            yield table_series("3 skipped", "Skipped", Table(["what", "why"], rows, text=(0, 1)))
        if self.topology is not None:
            yield from series_of(self.topology).series

    def _row(self, block: InspectedBlock) -> list[str]:
        spectrum = block.spectrum
        trusted = "" if spectrum is None else f"{block.trusted} of {len(spectrum.eigenvalues)}"
        departure = None if block.non_normality is None else block.non_normality.departure
        state = self.ranks.get(block.end)
        return [
            block.start,
            block.end,
            _number(block.r2),
            _number(block.skip),
            _number(block.beyond_skip),
            trusted,
            _number(block.largest),
            "" if state is None else str(state),
            "" if block.rank is None else str(block.rank),
            _number(departure),
            "" if block.span is None else self._saved(block.span.saved),
        ]

    def _below(self) -> list[str]:
        lines = ["ranks: effective / numerical / directions"] if self.ranks else []
        if self.surrogate is not None:
            spectrum, last = self.surrogate.spectrum(), self.layers[-1]
            held = self.surrogate.record.held_out
            judged = f", R² {held[last]:.4f} on {self.unseen} unseen rows" if last in held else ""
            lines.append(
                f"{self.layers[0]} → {last}: {len(spectrum.eigenvalues)} modes, "
                f"{int(spectrum.trusted().sum())} trusted{judged}"
            )
        if self.ranking is not None:
            worth = [span for span in self.ranking.spans if span.best][:_SPANS]
            lines += [
                f"worth replacing: {span.start} → {span.end}, R² {span.r2:.4f}, "
                f"saves {self._saved(span.saved)} of the operations"
                for span in worth
            ] or ["worth replacing: none, a linear map costs as much as each span"]
        if self.topology is not None:
            counts = " → ".join(map(str, self.topology.network))
            lines.append(
                f"components at ε = {self.topology.epsilon:.4g} by depth: {counts}; surrogate "
                + " → ".join(map(str, self.topology.surrogate))
            )
        return lines

    def _saved(self, operations: float) -> str:
        whole = 0.0 if self.ranking is None else self.ranking.network.operations
        return f"{operations / (whole or float('inf')):.1%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
