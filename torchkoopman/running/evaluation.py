"""The report on held-out rows: a surrogate beside what is trivial and what is instant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from torchkoopman.fitting.quality import Unexplained, outside, predictions
from torchkoopman.tables import Table, Tabular, qualities

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchkoopman.koopman.feature_maps import Affine
    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.processes import Processes
    from torchkoopman.observe.trajectory import Trajectory


@dataclass(frozen=True)
class Evaluation(Tabular):
    """R² of a surrogate's predictions on rows the fit has not seen; print it.

    R² is the share of variance that is explained, 1 - mean squared error / variance: 1 is perfect,
    0 no better than the mean, negative worse.

    Example:
        >>> print(tk.evaluate(surrogate, model, test.loader(500)))
        layer '9' on 5000 held-out rows
        predicted by      R²
        edmd          0.9...
    """

    method: str
    """How the surrogate was fitted."""
    rows: int
    """Held-out rows."""
    layers: dict[str, float]
    """Layer → R² of its prediction from the first layer."""
    baselines: dict[str, float]
    """Baseline → R² of the last layer."""
    notes: tuple[str, ...] = ()
    """What could not be measured, and why."""
    outside: dict[str, float] = field(default_factory=dict)
    """Layer → share of its variance outside the directions that the surrogate keeps, which no
    prediction can explain; only where these are fewer than its features."""

    @property
    def r2(self) -> float:
        """R² of the last layer."""
        return list(self.layers.values())[-1]

    def beaten_by(self) -> list[str]:
        """Baselines that do at least as well on the last layer."""
        return [name for name, r2 in self.baselines.items() if r2 >= self.r2]

    def table(self) -> Table:
        """A row for each baseline and for the method, on the last layer."""
        last = list(self.layers)[-1]
        entries = {**self.baselines, self.method: self.r2}
        rows = list(zip(entries, qualities(*entries.values()), strict=True))
        below = []
        if len(self.layers) > 1:
            shown = zip(self.layers, qualities(*self.layers.values()), strict=True)
            below.append(f"R² by layer: {'  '.join(f'{layer} {r2}' for layer, r2 in shown)}")
        if self.outside:
            shares = "  ".join(f"{layer} {share:.2%}" for layer, share in self.outside.items())
            below.append(f"variance outside the directions kept: {shares}")
        if self.beaten_by():
            below.append(f"the {self.method} does not beat: {', '.join(self.beaten_by())}")
        above = [f"layer {last!r} on {self.rows} held-out rows"]
        return Table(["predicted by", "R²"], rows, above, [*below, *self.notes])


class Evaluator:
    """Streams held-out trajectories through a surrogate, baselines and rival surrogates."""

    def __init__(
        self,
        surrogate: Surrogate,
        maps: Mapping[str, Affine] | None = None,
        rivals: Mapping[str, Surrogate] | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.surrogate = surrogate
        among = (surrogate, *(rivals or {}).values())
        self.contextual = any(each.observables.contextual for each in among)
        self._maps = dict(maps or {})
        self._rivals = dict(rivals or {})
        self._notes = notes
        self._layers = {layer: Unexplained() for layer in surrogate.layers[1:]}
        self._outside = {layer: Unexplained() for layer in surrogate.layers}
        self._baselines = {name: Unexplained() for name in (*self._maps, *self._rivals)}

    def update(self, trajectory: Trajectory) -> None:
        """Take in one held-out trajectory."""
        rows = self.surrogate.span.stacked(trajectory).rows()
        for layer, prediction in predictions(self.surrogate, trajectory).items():
            self._layers[layer].update(prediction, rows[layer])
        for layer, left in outside(self.surrogate, trajectory).items():
            self._outside[layer].merge(left)
        start, end = rows[self.surrogate.layers[0]], rows[self.surrogate.layers[-1]]
        for name, (weight, bias) in self._maps.items():
            self._baselines[name].update(start.double() @ weight.T + bias, end)
        for name, rival in self._rivals.items():
            prediction = predictions(rival, trajectory)[rival.layers[-1]]
            self._baselines[name].update(prediction, end)

    def over(self, processes: Processes) -> Self:
        """Take in what the evaluators of all processes have seen; call it once."""
        for theirs in ("_layers", "_baselines", "_outside"):
            said = processes.gather(getattr(self, theirs))
            found = {name: Unexplained() for name in said[0]}
            for each in said:
                for name, unexplained in each.items():
                    found[name].merge(unexplained)
            setattr(self, theirs, found)
        return self

    def result(self) -> Evaluation:
        """What came out."""
        known = {layer: each for layer, each in self._layers.items() if each.rows}
        if not known:
            raise ValueError(
                "no held-out rows came, so there is nothing to report: a single pass holds out "
                "every tenth sample. Give fit() ten samples or more, or held_out=another loader."
            )
        return Evaluation(
            self.surrogate.record.method,
            next(iter(known.values())).rows,
            {layer: each.r2 for layer, each in known.items()},
            {name: each.r2 for name, each in self._baselines.items()},
            self._notes,
            {layer: each.value for layer, each in self._outside.items() if each.rows},
        )
