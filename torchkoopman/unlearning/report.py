"""What an audit found, and its printed table: one row a measure, one column a network."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from torchkoopman.tables import Table, Tabular
from torchkoopman.unlearning.plotting import draw_detections, draw_differences

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from torchkoopman.unlearning.measures import Detection, Membership
    from torchkoopman.unlearning.relearning import Relearning

ORIGINAL, UNEDITED, EDITED, RETRAINED = "original", "unedited swap", "edited", "retrained"
STATES = ("start", "operator", "decoded")
"""Where the forgotten classes are looked for, in the order of depth."""
_BLANK = "–"
_BALANCED = ", balanced %"
"""Ends the names of detectors' measures."""


@dataclass(frozen=True)
class Column:
    """What was measured on one network."""

    test: dict[int, float]
    """Class → accuracy on unseen data."""
    train: dict[int, float]
    """Class → accuracy on training data."""
    forgotten: float
    """Share of unseen samples of the forgotten classes that are still given their class."""
    retained: float
    """Accuracy on unseen samples of the other classes."""
    divergence: tuple[float, float] | None
    """KL of this network's answers from the retrained network's on unseen data, in nats: on the
    forgotten classes, and on the others."""
    membership: Membership
    """The share of the forgotten classes' training samples that an attack by entropy recognises."""
    relearning: int | None
    """Gradient steps until the forgotten classes are back; None if they did not come back."""
    detections: dict[str, Detection]
    """State → how well the forgotten classes are detected in it. ``"start"`` and ``"decoded"`` are
    the outputs of the two layers, ``"operator"`` the latent state after the operator."""


@dataclass(frozen=True)
class Audit(Tabular):
    """What was forgotten and what was kept, a column for each network; print it.

    Example:
        >>> edited = tk.swap(model, tk.unlearn(surrogate, classes=[2], model=model))
        >>> quick = {"samples": 200, "relearning": tk.Relearning(limit=5)}
        >>> found = tk.audit(model, edited, [2], train.loader(500), test.loader(500), **quick)
        >>> print(found)
        forgetting [2]                     original   edited
        forgotten, still right, test %        9...      ...
        ...
        >>> abs(found.edit_cost) < 0.05  # of the accuracy on the other classes
        True
    """

    classes: tuple[int, ...]
    """The forgotten ones."""
    columns: dict[str, Column]
    """Network → what was measured; original first, retrained last."""
    seconds: float | None
    """Seconds that the closed-form edit took; None without its surrogate."""
    moment_bytes: int | None
    """Bytes of the class-wise moments that the edit needs; None without its surrogate."""
    relearning: Relearning
    """How relearning was tried."""
    notes: tuple[str, ...] = field(default=())
    """What could not be measured or checked, and why."""

    @property
    def swap_cost(self) -> float | None:
        """Accuracy that the swap alone costs on the retained classes; None if not measured."""
        if UNEDITED not in self.columns:
            return None
        return self.columns[ORIGINAL].retained - self.columns[UNEDITED].retained

    @property
    def edit_cost(self) -> float:
        """Accuracy that the edit costs on the retained classes, without the cost of the swap."""
        before = UNEDITED if UNEDITED in self.columns else ORIGINAL
        return self.columns[before].retained - self.columns[EDITED].retained

    def card(self) -> dict[str, Any]:
        """JSON-able content."""
        return {**asdict(self), "swap_cost": self.swap_cost, "edit_cost": self.edit_cost}

    def table(self) -> Table:
        """A row for each measure, with what the edit took and the notes below."""
        cost = f"on retained classes, points: edit {100 * self.edit_cost:+.2f}"
        if self.swap_cost is not None:
            cost += f", swap {100 * self.swap_cost:+.2f}"
        below = [f"lost {cost}"]
        if self.seconds is not None:
            below.append(f"the edit took {1000 * self.seconds:.1f} ms")
        if self.moment_bytes is not None:
            below[-1] += f"; it needs {self.moment_bytes / 2**20:.2f} MiB of moments"
        head = [f"forgetting {list(self.classes)}", *self.columns]
        limit = self.relearning.limit
        rows = [[row.name, *row.cells(limit)] for row in measured(self)]
        return Table(head, rows, below=[*below, *self.notes])

    def plot(
        self, ax: Axes | None = None, part: Literal["accuracy", "detection"] = "accuracy"
    ) -> Axes:
        """What each network lost or gained on each class, or where forgotten classes are detected.

        Args:
            ax: matplotlib axes to draw on; None for a new figure.
            part: ``"accuracy"`` draws percentage points against the original, linear within a point
                of zero and in powers of ten beyond, so that small losses are seen beside a whole
                class; rows of forgotten classes have a band. ``"detection"`` draws how well a probe
                and nearest neighbours tell the forgotten classes from the others in each state.

        Raises:
            ImportError: matplotlib is not installed (the extra ``torchkoopman[plot]``).
            ValueError: there is no such part, or no state was looked into.
        """
        if part == "accuracy":
            before = self.columns[ORIGINAL].test
            labels = sorted(before)
            differences = {
                name: [100 * (column.test[c] - before[c]) for c in labels]
                for name, column in self.columns.items()
                if name != ORIGINAL
            }
            ax = draw_differences(differences, labels, self.classes, EDITED, ax)
        else:
            if part != "detection":
                raise ValueError(f"plot() got part={part!r}; it draws 'accuracy' or 'detection'.")
            rows = [row for row in measured(self) if row.name.endswith(_BALANCED)]
            if not rows:
                raise ValueError(
                    "plot() got part='detection', and the audit looked into no states; give "
                    "tk.audit() layers= or surrogates=."
                )
            found = {name: [row.values[k] for row in rows] for k, name in enumerate(self.columns)}
            names = [row.name.removesuffix(_BALANCED) for row in rows]
            ax = draw_detections(found, names, EDITED, ax)
        ax.set_title(f"Forgetting {list(self.classes)}", fontsize=10)
        return ax


@dataclass(frozen=True)
class Measure:
    """One row of an audit: a number for each network."""

    name: str
    """As the table has it; with a % the values are percentages."""
    values: list[float]
    """In the audit's order of columns; NaN where unknown, infinite for steps beyond the limit."""
    decimals: int = 2
    """How many the table shows."""
    label: int | None = None
    """The class that it is of, where it is of one alone."""

    def cells(self, limit: int) -> list[str]:
        """As the table shows them; ``limit`` is of the steps."""
        return [self._cell(value, limit) for value in self.values]

    def _cell(self, value: float, limit: int) -> str:
        if math.isnan(value):
            return _BLANK
        return f"> {limit}" if math.isinf(value) else f"{value:.{self.decimals}f}"


def measured(audit: Audit) -> list[Measure]:
    """All that an audit measured, in the order of its table."""
    columns = list(audit.columns.values())
    labels = sorted(columns[0].test)
    gone = [c for c in labels if c in audit.classes]
    kept = [c for c in labels if c not in audit.classes]
    divergences = [column.divergence or (math.nan, math.nan) for column in columns]
    steps = [math.inf if c.relearning is None else float(c.relearning) for c in columns]
    rows = [
        _percent("forgotten, still right, test", [c.forgotten for c in columns]),
        _percent("forgotten, still right, train", [_mean(c.train, gone) for c in columns]),
        _percent("retained, test", [c.retained for c in columns]),
        _percent("retained, mean of classes, train", [_mean(c.train, kept) for c in columns]),
        *(_of_class(label, label in gone, columns) for label in labels),
        Measure("KL from retrained, forgotten", [each[0] for each in divergences], 3),
        Measure("KL from retrained, retained", [each[1] for each in divergences], 3),
        _percent("taken for members, forgotten", [c.membership.forgotten for c in columns]),
        Measure("the attack's own AUC", [c.membership.strength for c in columns], 3),
        Measure("relearning, steps", steps, 0),
        Measure("… of the retrained network's", _ratios(steps, audit)),
    ]
    known = {name for column in columns for name in column.detections}
    for state in (name for name in STATES if name in known):
        found = [column.detections.get(state) for column in columns]
        probes = [math.nan if each is None else each.probe for each in found]
        votes = [math.nan if each is None else each.neighbours for each in found]
        rows.append(_percent(f"probe at {state}, balanced", probes))
        rows.append(_percent(f"neighbours at {state}, balanced", votes))
    return rows


def _percent(name: str, shares: list[float], label: int | None = None) -> Measure:
    return Measure(f"{name} %", [100 * share for share in shares], label=label)


def _of_class(label: int, gone: bool, columns: list[Column]) -> Measure:
    name = f"  class {label}{' (forgotten)' if gone else ''}, test"
    return _percent(name, [column.test[label] for column in columns], label)


def _ratios(steps: list[float], audit: Audit) -> list[float]:
    last = steps[-1]
    if RETRAINED not in audit.columns or last == 0 or math.isinf(last):
        return [math.nan] * len(steps)
    return [math.nan if math.isinf(each) else each / last for each in steps]


def _mean(values: dict[int, float], classes: list[int]) -> float:
    return sum(values[c] for c in classes) / len(classes)
