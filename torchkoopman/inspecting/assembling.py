"""All measures of one pass as one result, and what limits them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from torchkoopman.inspecting.inspection import Inspection
from torchkoopman.inspecting.measuring import Measures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchkoopman.inspecting.chosen import Chosen
    from torchkoopman.inspecting.gathering import Gathering
    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.costs import NetworkCosts


def measured(
    model: str,
    chosen: Chosen,
    gathering: Gathering,
    costs: NetworkCosts | None,
    positions: int | None,
    points: int,
    progress: bool,
) -> Inspection:
    """Everything that is said of the layers.

    Args:
        model: its class.
        chosen: the layers, and how they were found.
        gathering: what listened to the pass.
        costs: of the first batch.
        positions: of each sample that were taken at most.
        points: rows whose shape is looked at.
        progress: show a bar.
    """
    take, steps = Measures(gathering, costs), list(pairwise(gathering.statistics.layers))
    with tqdm(total=len(steps) + 3, desc="measure", disable=not progress) as bar:
        ranking = take.ranking()
        bar.update()
        blocks = []
        for start, end in steps:
            blocks.append(take.block(start, end, ranking))
            bar.update()
        surrogate = take.surrogate()
        bar.update()
        topology = take.topology(surrogate, points)
        bar.update()
    unseen = len(next(iter(gathering.unseen.rows().values()), ()))
    return Inspection(
        model,
        take.layers,
        chosen.said,
        gathering.rows,
        unseen,
        tuple(blocks),
        surrogate,
        ranking,
        take.ranks(),
        topology,
        (*chosen.skipped, *take.skipped),
        tuple(_notes(gathering, chosen, surrogate, positions)),
    )


def _notes(
    gathering: Gathering, chosen: Chosen, surrogate: Surrogate | None, positions: int | None
) -> Iterator[str]:
    """What limits the numbers."""
    rows = gathering.rows
    enough = gathering.ended_early
    said = f"{rows} rows" + (", and no further batch was taken (rows=)" if enough else "")
    if chosen.positions > 1:
        some = (
            "all" if positions is None or positions >= chosen.positions else f"{positions} random"
        )
        said += (
            f"; {some} positions of {chosen.positions} in each sample, {max(chosen.widths)} wide"
        )
    yield f"{said}; R² of spans is of rows that were not fitted"
    yield from chosen.notes
    rank, widest = gathering.fitter.rank, max(chosen.widths)
    if widest > rank:
        yield f"maps and their spectra are of the {rank} directions of most variance, of {widest}"
    if surrogate is not None:
        yield from surrogate.record.notes
