"""What an audit found, and its printed table: one row a measure, one column a network."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from torchkoopman.tables import Table, Tabular

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchkoopman.unlearning.measures import Detection, Membership
    from torchkoopman.unlearning.relearning import Relearning

ORIGINAL, UNEDITED, EDITED, RETRAINED = "original", "unedited swap", "edited", "retrained"
STATES = ("start", "operator", "decoded")
"""Where the forgotten classes are looked for, in the order of depth."""
_BLANK = "–"


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
        rows = [[name, *cells] for name, cells in audit_rows(self)]
        return Table(head, rows, below=[*below, *self.notes])


def audit_rows(audit: Audit) -> list[tuple[str, list[str]]]:
    """Measure → its cells, one for each network, in the audit's order of columns."""
    columns = list(audit.columns.values())
    labels = sorted(columns[0].test)
    gone = [c for c in labels if c in audit.classes]
    kept = [c for c in labels if c not in audit.classes]
    rows: list[tuple[str, Callable[[Column], str]]] = [
        ("forgotten, still right, test %", lambda c: _percent(c.forgotten)),
        ("forgotten, still right, train %", lambda c: _percent(_mean(c.train, gone))),
        ("retained, test %", lambda c: _percent(c.retained)),
        ("retained, mean of classes, train %", lambda c: _percent(_mean(c.train, kept))),
        *(_class_row(label, label in gone) for label in labels),
        ("KL from retrained, forgotten", lambda c: _number(c.divergence and c.divergence[0])),
        ("KL from retrained, retained", lambda c: _number(c.divergence and c.divergence[1])),
        ("taken for members, forgotten %", lambda c: _percent(c.membership.forgotten)),
        ("the attack's own AUC", lambda c: _number(c.membership.strength)),
        ("relearning, steps", lambda c: _steps(c.relearning, audit.relearning.limit)),
        ("… of the retrained network's", lambda c: _ratio(c, columns[-1], audit)),
    ]
    known = {name for column in columns for name in column.detections}
    for state in (name for name in STATES if name in known):
        rows.append((f"probe at {state}, balanced %", _detected(state, "probe")))
        rows.append((f"neighbours at {state}, balanced %", _detected(state, "neighbours")))
    return [(name, [cell(column) for column in columns]) for name, cell in rows]


def _class_row(label: int, gone: bool) -> tuple[str, Callable[[Column], str]]:
    name = f"  class {label}{' (forgotten)' if gone else ''}, test %"
    return name, lambda column: _percent(column.test[label])


def _detected(state: str, how: str) -> Callable[[Column], str]:
    def cell(column: Column) -> str:
        known = column.detections.get(state)
        return _BLANK if known is None else _percent(getattr(known, how))

    return cell


def _ratio(column: Column, last: Column, audit: Audit) -> str:
    if "retrained" not in audit.columns or not last.relearning or column.relearning is None:
        return _BLANK
    return f"{column.relearning / last.relearning:.2f}"


def _mean(values: dict[int, float], classes: list[int]) -> float:
    return sum(values[c] for c in classes) / len(classes)


def _steps(steps: int | None, limit: int) -> str:
    return f"> {limit}" if steps is None else str(steps)


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _number(value: float | None) -> str:
    return _BLANK if value is None else f"{value:.3f}"
