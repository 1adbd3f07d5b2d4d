"""The tables of the part ``cells``."""

from __future__ import annotations

import copy
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from benchmarks.tables import markdown, spread

if TYPE_CHECKING:
    from collections.abc import Iterable

Results = dict[str, dict[str, Any]]
HALF = 0.5
"""The goal: the gnODE's error over that of the GRU with 32 states."""
SHOWN = (0, 4, 9, 19)
"""Of twenty parts of a training those that are printed."""
TWO = "Two bits of continuous amplitudes (square), 1 500 iterations, the better rate of .03 and .1"
PAPER = (
    "Two bits of continuous amplitudes (square), the paper's F of two hidden layers of 316, 1 500 "
    "iterations, the better rate of .003 and .01, with which the paper's grid ends"
)
EARLY = (
    "Two bits of continuous amplitudes (square), 350 iterations, as many as when the goal was set, "
    "the better constant rate of .003 and .01"
)
THREE = (
    "Three bits of continuous amplitudes, F of three hidden layers of 100, 150 iterations, the "
    "better rate of .003 and .01"
)


KINDS = ("RNN", "mGRU", "GRU", "nODE", "gnODE")
STATES = ("2", "6", "100")


def ordered(names: Iterable[str]) -> list[str]:
    """Cells of one number of states together, those of sizes of their own last."""

    def place(name: str) -> tuple[int, int]:
        kind, states = name.split()
        own = STATES.index(states) if states in STATES else len(STATES)
        return own, KINDS.index(kind)

    return sorted(names, key=place)


def text(results: Results) -> str:
    """All tables of which there are results."""
    makers = {
        "early": early_text,
        "bar": bar_text,
        "paper": paper_text,
        "three": three_text,
        "grid": grid_text,
        "expressive": expressive_text,
    }
    parts = []
    for kind, made in makers.items():
        runs = [copy.deepcopy(run) for job, run in results.items() if job.startswith(f"{kind}-")]
        if runs:
            parts.append(made(runs))
    return "\n\n".join(parts)


def early_text(runs: list[dict[str, Any]]) -> str:
    """Both cells after a short training, and the goal."""
    return f"{_compared(EARLY, runs)}\n\n{_goal(runs)}"


def bar_text(runs: list[dict[str, Any]]) -> str:
    """A gnODE of two states beside a GRU with 32, and the goal."""
    return f"{_compared(TWO, runs)}\n\n{_goal(runs)}\n\n{_courses('two bits', runs)}"


def paper_text(runs: list[dict[str, Any]]) -> str:
    """Both cells with the paper's F and rates, and the goal."""
    return f"{_compared(PAPER, runs)}\n\n{_goal(runs)}"


def _goal(runs: list[dict[str, Any]]) -> str:
    pairs = [[run["cells"][cell]["error"] for cell in ("gnODE 2", "GRU 32")] for run in runs]
    own, other = map(mean, zip(*pairs, strict=True))
    ratios = [a / b for a, b in pairs]
    met = "met" if own <= HALF * other else "MISSED"
    return (
        "Goal (ours, not the paper's), mean over seeds: the gnODE with 2 states has at most half "
        f"the error of a GRU with 32; it has {own / other:.2f} of it "
        f"({min(ratios):.2f} to {max(ratios):.2f} by seed): {met}."
    )


def three_text(runs: list[dict[str, Any]]) -> str:
    """Cells of equal states, and of equal size."""
    least = min(runs[0]["cells"], key=lambda c: mean(run["cells"][c]["error"] for run in runs))
    return (
        f"{_compared(THREE, runs)}\n\nLeast error: {least}. The last rows have as many parameters "
        f"as the gnODE of 6 states.\n\n{_courses('three bits', runs)}"
    )


def _compared(title: str, runs: list[dict[str, Any]]) -> str:
    rows = []
    for cell in ordered(runs[0]["cells"]):
        own = [run["cells"][cell] for run in runs]

        def over(name: str, digits: int, own: list[dict[str, Any]] = own) -> str:
            known = [each[name] for each in own if name in each]
            return spread(known, digits) if known else "–"

        rows.append(
            [
                *cell.split(),
                over("error", 4),
                str(own[0]["parameters"]),
                over("processor seconds", 0),
                ", ".join(f"{rate:g}" for rate in sorted({each["rate"] for each in own})),
                over("drift", 4),
                over("near one", 1),
                over("fixed", 1),
                over("slow", 1),
                over("stable", 1),
            ]
        )
    variance = spread([run["variance"] for run in runs], 3)
    head = ["cell", "N", "test MSE", "parameters", "s", "rates chosen", "drift"]
    head += ["multipliers > .9", "fixed", "slow", "attractors"]
    return (
        f"{title}, {len(runs)} seed(s); the mean of the targets would have an MSE of {variance}:"
        f"\n\n{markdown(head, rows)}"
    )


def _courses(title: str, runs: list[dict[str, Any]]) -> str:
    """Loss and gradient norm at a few places of the training, of the rate that was chosen."""
    parts = len(next(iter(runs[0]["cells"].values()))["course"])
    places = [place for place in SHOWN if place < parts]
    rows = []
    for cell in ordered(runs[0]["cells"]):
        courses = [run["cells"][cell]["course"] for run in runs]
        rows.append([cell, *(_place(courses, place) for place in places)])
    head = ["cell", *(f"{100 * (place + 1) / parts:.0f} %" for place in places)]
    return (
        f"Trainability, {title}: loss and gradient norm before clipping, means of a twentieth of "
        f"the training that ends there:\n\n{markdown(head, rows)}"
    )


def _place(courses: list[list[list[float]]], place: int) -> str:
    loss, norm = (mean(course[place][k] for course in courses) for k in (0, 1))
    return f"{loss:.3g}, {norm:.2g}"


def grid_text(runs: list[dict[str, Any]]) -> str:
    """Critical start or not, by weight decay."""
    keys = [key.rsplit(", ", 1) for key in runs[0]["grid"]]
    decays = list(dict.fromkeys(decay for _, decay in keys))
    rows = []
    for start in dict.fromkeys(start for start, _ in keys):
        cells = [start.split(", ")[0], start.split(", ")[1]]
        for decay in decays:
            own = [run["grid"][f"{start}, {decay}"]["error"] for run in runs]
            good = [e for e, run in zip(own, runs, strict=True) if e <= run["variance"]]
            lost = len(own) - len(good)
            said = [spread(good, 4)] if good else []
            cells.append(", ".join(said + ([f"{lost} lost"] if lost else [])))
        begins = [run["grid"][f"{start}, {decays[0]}"]["begins"] for run in runs]
        rows.append([*cells, f"{median(begins):.3g}"])
    head = ["cell", "weights", *(f"decay {decay}" for decay in decays), "loss at first"]
    return (
        "Start and weight decay, 6 states on three continuous bits, 150 iterations at .01, F of "
        "two hidden layers of 100: test MSE (lost: worse than the mean of the targets), and the "
        "median loss over the first twentieth of the training:\n\n"
        f"{markdown(head, rows)}"
    )


def expressive_text(runs: list[dict[str, Any]]) -> str:
    """Expressivity by dimension and by the width of F, beside untrained cells."""
    for run in runs:  # the width that all cells have in the first table
        if run["layers"]:
            run["layers"] |= {f"{c} 100": run["states"][f"{c} 6"] for c in ("nODE", "gnODE")}

    def line(where: str, cell: str, sizes: list[str]) -> list[str]:
        cells = []
        for size in sizes:
            known = [run[where].get(f"{cell} {size}") for run in runs]
            given = [each for each in known if each is not None]
            cells.append(
                f"{spread([each[0] for each in given], 2)} ({mean(e[1] for e in given):.2f})"
                if given
                else "–"
            )
        return [cell, *cells]

    def table(where: str, of: str) -> str:
        names = [key.split() for key in runs[0][where]]
        sizes = sorted({size for _, size in names}, key=int)
        cells = sorted({cell for cell, _ in names}, key=KINDS.index)
        return markdown(
            ["cell", *(f"{of} {size}" for size in sizes)],
            [line(where, cell, sizes) for cell in cells],
        )

    by_width = f"\n\nBy the width of F, 6 states:\n\n{table('layers', 'width')}"
    return (
        "Expressivity (share of the variance of one random trajectory of 50 times that a trained "
        "cell without input explains, after 150 steps; in brackets before the training), F of one "
        f"hidden layer of 100:\n\n{table('states', 'N =')}{by_width if runs[0]['layers'] else ''}"
    )
