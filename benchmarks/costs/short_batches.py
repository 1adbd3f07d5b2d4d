"""Cost of short batches: moments of rows that wait, beside rows that are taken in as they come.

A network that is watched while it trains gives 16 to 256 rows at a time, and their labels. Times
are per row: of the moments that a fitter streams with ten classes and with none, of the same
moments when each batch is multiplied at once, and of deeptime's covariances, which know no classes.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.costs.measuring import in_turn
from torchkoopman.fitting.gathered import Gathered
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.pairs import layer_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    Batches = Iterator[tuple[dict[str, Tensor], Tensor | None]]

BATCHES, CLASSES, LONG = (16, 64, 256, 1000), 10, 1000
FULL, SMALL = {128: 8_000, 512: 4_000}, {32: 1_000}
"""Features → rows."""
PAIRS = layer_pairs(("start", "end"), "ends")
WAIT, COME, PEER = "rows wait", "taken in as they come", "deeptime"


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Job → what measures it, one for each width."""
    turns = 2 if quick else 5
    sizes = SMALL if quick else FULL
    return {
        f"{features} features": partial(measure, features, rows, turns)
        for features, rows in sizes.items()
    }


def measure(features: int, rows: int, turns: int) -> dict[str, Any]:
    """Times of all streams in turn, ours of which end in moments that have been read."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(rows, features, generator=generator)
    end = start + 0.3 * torch.tanh(start.roll(1, 1))
    labels = torch.randint(CLASSES, (rows,), generator=generator)

    def batches(size: int, labelled: bool) -> Batches:
        for first in range(0, rows, size):
            part = slice(first, first + size)
            yield {"start": start[part], "end": end[part]}, labels[part] if labelled else None

    runs: dict[str, Callable[[], object]] = {}
    for size in BATCHES:
        for labelled in (True, False):
            given = partial(batches, size, labelled)
            runs[_name(WAIT, labelled, size)] = partial(_waiting, given)
            runs[_name(COME, labelled, size)] = partial(_coming, given)
        if find_spec("deeptime"):
            runs[_name(PEER, False, size)] = partial(_deeptime, partial(batches, size, False))
    times = in_turn(runs, turns)
    return {"features": features, "rows": rows, "turns": turns, "times": times}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: least times per row."""
    heads = " | ".join(f"batches of {size}" for size in BATCHES)
    lines = [f"| µs per row | {heads} |", "|---" * (1 + len(BATCHES)) + "|"]
    for job, result in results.items():
        times = result["times"]
        for labelled in (True, False):
            for who in (WAIT, COME, PEER):
                if _name(who, labelled, LONG) not in times:
                    continue
                least = [times[_name(who, labelled, size)]["least"] for size in BATCHES]
                cells = " | ".join(f"{1e6 * each / result['rows']:.1f}" for each in least)
                classes = f"{CLASSES} classes" if labelled else "no labels"
                lines.append(f"| {job}, {classes}: {who} | {cells} |")
    return "\n".join(lines)


def _waiting(batches: Callable[[], Batches]) -> object:
    gathered = Gathered(LabelledMoments(PAIRS))
    for values, labels in batches():
        gathered.update(values, labels)
    return gathered.moments


def _coming(batches: Callable[[], Batches]) -> object:
    moments = LabelledMoments(PAIRS)
    for values, labels in batches():
        moments.update(values, labels)
    return moments


def _deeptime(batches: Callable[[], Batches]) -> object:
    from deeptime.covariance import Covariance

    estimator: Any = Covariance  # it has no types
    moments = estimator(
        lagtime=1, compute_c00=True, compute_c0t=True, compute_ctt=True, remove_data_mean=True
    )
    for values, _ in batches():
        moments.partial_fit((values["start"].double().numpy(), values["end"].double().numpy()))
    return moments.fetch_model()


def _name(who: str, labelled: bool, size: int) -> str:
    return f"{who}, {'labels' if labelled else 'no labels'}, {size}"
