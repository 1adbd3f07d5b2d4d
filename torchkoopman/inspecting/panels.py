"""What an inspection shows on a page: its blocks as steps of a slider, and its tables."""

from __future__ import annotations

import math
from dataclasses import replace
from posixpath import commonpath
from typing import TYPE_CHECKING

import numpy as np
from torchkoopman_panels import Series
from torchkoopman_panels.schema import SPECTRUM_COLUMNS

from torchkoopman.showing.dispatch import series_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torchkoopman_panels import Document

    from torchkoopman.inspecting.blocks import InspectedBlock
    from torchkoopman.koopman.surrogate import Surrogate

_BLOCKS = "blocks"
"""Span of all blocks, each at a step of its own from 1; it comes before the whole span's name."""


def add_blocks(
    document: Document,
    run: str,
    layers: Sequence[str],
    blocks: Sequence[InspectedBlock],
    of_all: Iterable[Series],
) -> None:
    """Add the blocks, each a step.

    Args:
        document: what the page shows.
        run: name of the run.
        layers: all that were inspected.
        blocks: from each to the next.
        of_all: what belongs to all steps.
    """
    known = [block.spectrum.frames for block in blocks if block.spectrum is not None]
    for step, block in enumerate(blocks, start=1):
        _name(document, step, " → ".join(_shortened((block.start, block.end), layers)))
        if known:
            document.add(run, _BLOCKS, step, _of_block(block, layers, known[0]))
    document.add(run, _BLOCKS, 1, of_all)


def add_whole(document: Document, run: str, surrogate: Surrogate) -> None:
    """Add the whole span as step 0, with R² on rows that the fit has not seen."""
    ends = f"{surrogate.layers[0]} → {surrogate.layers[-1]}"
    document.labels[0] = "whole span"  # of any other result on the page, too
    document.add(run, f"whole span, {ends}", 0, series_of(surrogate).series)


def _of_block(block: InspectedBlock, layers: Sequence[str], frames: str) -> Iterator[Series]:
    """What a block shows, under what holds for all alike, so that one slider goes over them.

    One without a spectrum shows none: else the page would show that of the block before.
    """
    about = {"layers": list(layers), "steps": 1, "frames": frames}
    if block.surrogate is None or block.spectrum is None:
        yield Series("spectrum", np.empty((0, len(SPECTRUM_COLUMNS))), about)
        yield Series("singular_values", np.empty(0))
    else:
        for series in series_of(block.surrogate).series:
            if series.name in ("spectrum", "singular_values"):
                yield replace(series, about=about if series.name == "spectrum" else {})
    scored = {"layers": ["skipping the block", "affine map"], "of": "predicted by"}
    r2 = [math.nan if each is None else each for each in (block.skip, block.r2)]
    yield Series("r2", np.array(r2), scored)


def _shortened(names: Sequence[str], layers: Sequence[str]) -> list[str]:
    """Names without the modules around all layers."""
    around = commonpath([layer.replace(".", "/").rpartition("/")[0] for layer in layers])
    return [name[len(around) + 1 :] if around else name for name in names]


def _name(document: Document, step: int, label: str) -> None:
    """Call a step so; where runs differ, by all their names."""
    known = document.labels.get(step, label)
    document.labels[step] = known if label in known.split(" / ") else f"{known} / {label}"
