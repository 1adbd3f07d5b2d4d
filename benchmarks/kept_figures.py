"""The figures of the evidence page, from the results in ``docs/results``.

``python -m benchmarks.kept_figures`` writes them to ``docs/figures``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from benchmarks import attractors_figure, cells_figure, evidence, forgetting_figure

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

mpl.use("Agg")
from matplotlib import pyplot as plt

FIGURES: dict[str, tuple[str, Callable[[dict[str, dict[str, Any]]], Figure]]] = {
    "attractors": ("attractors", attractors_figure.drawn),
    "forgetting": ("forgetting", forgetting_figure.drawn),
    "trainability": ("cells", cells_figure.drawn),
}
"""Figure → the part of the bench whose results it shows, and what draws them."""


def main(arguments: list[str] | None = None) -> int:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*FIGURES], default=[*FIGURES])
    parser.add_argument("--out", type=Path, default=evidence.ROOT / "docs" / "figures")
    chosen = parser.parse_args(arguments)
    results = evidence.kept()
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in chosen.only:
        part, drawn = FIGURES[name]
        figure = drawn(results[part])
        path = chosen.out / f"{name}.png"
        figure.savefig(path, dpi=110, bbox_inches="tight")
        plt.close(figure)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
