"""Loss and gradient norm through the training of gated cells (``benchmarks.kept_figures``)."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from matplotlib import pyplot as plt

from benchmarks.parts.cells_tables import KINDS, ordered
from torchkoopman.pictures import CLASSES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drawn(results: dict[str, dict[str, Any]]) -> Figure:
    """Above the loss, below the gradient norm, medians over seeds; a kind has one colour."""
    panels: dict[str, tuple[list[dict[str, Any]], list[str]]] = {}
    for task in ("bar", "three"):
        runs = [run for job, run in results.items() if job.startswith(f"{task}-")]
        for cell in ordered(runs[0]["cells"]) if runs else ():
            panels.setdefault(panel(task, cell.split()[1]), (runs, []))[1].append(cell)
    figure, axes = plt.subplots(
        2, len(panels), figsize=(3.2 * len(panels), 5.2), layout="constrained", squeeze=False,
        sharey="row",
    )  # fmt: skip
    for column, (title, (runs, cells)) in enumerate(panels.items()):
        for cell in cells:
            kind = cell.split()[0]
            courses = [run["cells"][cell]["course"] for run in runs]
            for row in (0, 1):
                values = [
                    median(course[k][row] for course in courses) for k in range(len(courses[0]))
                ]
                share = [(k + 1) / len(values) for k in range(len(values))]
                axes[row, column].semilogy(
                    share, values, color=CLASSES[KINDS.index(kind)], label=cell
                )
        axes[0, column].set_title(title, fontsize=10)
        axes[0, column].legend(fontsize=7)
        axes[1, column].set_xlabel("share of the training")
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("gradient norm before clipping")
    return figure


def panel(task: str, states: str) -> str:
    """Where a cell is drawn."""
    if task == "bar":
        return "two bits"
    return f"three bits, N = {states}" if states in ("6", "100") else "three bits, equal size"
