"""What is known of networks that generalise late, and the rule by which something tells of it.

It tells once it has been, for ``STAYS`` checkpoints, outside of all that the controls ever show.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.tables import markdown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PRIME = 53
"""What sums are taken modulo; chance is one in so many."""
SETTLED = 1000
"""Step from which on values count; by then every network knows its training pairs by heart."""
STAYS = 4
"""Checkpoints in a row that must lie outside of what the controls show: a thousand steps."""
TRUSTED, UNEXPLAINED = "trusted modes", "unexplained variance"
RIVALS = ("weight norm", "training loss", "rank of the embedding", "test accuracy")
NAMES = (*(f"{fit}, {what}" for fit, what in product(("DMD", "EDMD"), (TRUSTED, UNEXPLAINED))),)
SUMS, CONTROLS = "sums", ("sums, no weight decay", "drawn labels")


@dataclass
class Checkpoint:
    """What is known of a network at one step of its training."""

    step: int
    values: dict[str, float]
    """Name, one of ``NAMES`` or ``RIVALS`` → its value."""


@dataclass
class Run:
    """One training."""

    kind: str
    seed: int
    checkpoints: list[Checkpoint]

    def series(self, name: str) -> list[float]:
        """The values of one quantity from step ``SETTLED`` on."""
        return [each.values[name] for each in self.checkpoints if each.step >= SETTLED]

    @property
    def steps(self) -> list[int]:
        """The steps of these values."""
        return [each.step for each in self.checkpoints if each.step >= SETTLED]


def tells(run: Run, name: str, controls: Sequence[Run]) -> int | None:
    """The step at which a quantity has left what the controls show for ``STAYS`` checkpoints."""
    shown = [value for control in controls for value in control.series(name)]
    if not shown:
        return None
    outside = [not min(shown) <= value <= max(shown) for value in run.series(name)]
    for end in range(STAYS, len(outside) + 1):
        if all(outside[end - STAYS : end]):
            return run.steps[end - 1]
    return None


def generalises(run: Run) -> int | None:
    """The first step at which half of the test pairs are right."""
    found = zip(run.steps, run.series("test accuracy"), strict=True)
    return next((step for step, right in found if right >= 0.5), None)


def table(runs: Sequence[Run]) -> str:
    """For each quantity: how long before half of the test pairs it tells, and false alarms."""
    learners = [run for run in runs if run.kind == SUMS]
    controls = [run for run in runs if run.kind in CONTROLS]
    half = [generalises(run) for run in learners]
    kinds = [kind for kind in (SUMS, *CONTROLS) if any(run.kind == kind for run in runs)]
    rows = []
    for name in (*NAMES, *RIVALS):
        told = [tells(run, name, controls) for run in learners]
        leads = [
            "never" if at is None else "—" if then is None else f"{then - at:+d}"
            for at, then in zip(told, half, strict=True)
        ]
        alarms = sum(
            tells(run, name, [other for other in controls if other is not run]) is not None
            for run in controls
        )
        ends = [median(run.series(name)[-1] for run in runs if run.kind == kind) for kind in kinds]
        rows.append([name, *leads, f"{alarms} of {len(controls)}", *(f"{end:.3g}" for end in ends)])
    head = [
        "steps ahead of half the test pairs",
        *(f"seed {run.seed}" for run in learners),
        "false alarms",
        *(f"at the end, {kind}" for kind in kinds),
    ]
    reached = ", ".join("never" if step is None else str(step) for step in half)
    best = max(max(control.series("test accuracy")) for control in controls)
    return (
        f"{markdown(head, rows)}\n\nHalf of the test pairs are right at step {reached}; no control "
        f"has more than {100 * best:.1f} % at any time (chance {100 / PRIME:.1f} %)."
    )


def picture(runs: Sequence[Run], path: Path) -> None:
    """Each quantity through training, one line a network."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = ("test accuracy", *NAMES[:2], "rank of the embedding", *NAMES[2:])
    colours = dict(zip((SUMS, *CONTROLS), ("#d9762b", "#1b5e8c", "#9a9a9a"), strict=True))
    figure, axes = plt.subplots(2, 3, figsize=(11.5, 6), layout="constrained", sharex=True)
    for place, name in zip(axes.flat, shown, strict=True):
        for run in runs:
            steps = [each.step for each in run.checkpoints]
            values = [each.values[name] for each in run.checkpoints]
            first = run.seed == min(each.seed for each in runs)
            label = run.kind if first else None
            place.plot(steps, values, color=colours[run.kind], linewidth=1.2, label=label)
        place.set_title(name, fontsize=10)
        place.grid(alpha=0.25)
    for place in axes[-1]:
        place.set_xlabel("optimiser step")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
