"""What the bench's parts share: seeds, the models' folder, and Markdown."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


RUNS = Path("runs/bench")
SEEDS = "TORCHKOOPMAN_SEEDS"
"""The environment variable that hands a bench's seeds to the processes of its jobs."""


def seeds(quick: bool) -> list[int]:
    """The seeds of a bench, those asked for or five; settings were searched on none of the five."""
    known = os.environ.get(SEEDS)
    if known:
        return [int(seed) for seed in known.split()]
    return [0] if quick else [0, 1, 2, 3, 4]


def tasks(quick: bool) -> list[str]:
    """The tasks of a bench: MNIST only in full, and where ``TORCHKOOPMAN_DATA`` says it lies."""
    known = os.environ.get("TORCHKOOPMAN_DATA")
    return ["yinyang"] if quick or not known else ["yinyang", "mnist"]


def place(quick: bool) -> Path:
    """The folder of a bench's results; other seeds than its own have one of their own."""
    name = "quick" if quick else "full"
    return RUNS / "-".join([name, *os.environ.get(SEEDS, "").split()])


def folder(quick: bool) -> Path:
    """Where networks and surrogates are kept between parts."""
    return place(quick) / "models"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns as wide as their widest cell."""
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in [head, *rows]]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def spread(values: Sequence[float], digits: int = 2, sign: bool = False) -> str:
    """Mean ± standard deviation over seeds, or the one value."""
    centre = f"{mean(values):{'+' if sign else ''}.{digits}f}"
    return centre if len(values) == 1 else f"{centre} ± {stdev(values):.{digits}f}"
