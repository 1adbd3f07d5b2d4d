"""A span's nonlinear surrogate beside the linear closed forms: one value, to print and to swap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from torchkoopman.tables import Table, Tabular, qualities

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchkoopman.koopman.folding import Replacement

GNODE = "gnODE"
"""How the gated neural ODE is called beside the closed forms."""
_LINEAR = (
    "card", "classes", "config", "edits", "evidence", "frames", "modes", "observables", "operator",
    "paths", "predict", "record", "replacement", "save", "span", "statistics", "topology", "with_",
)  # fmt: skip
"""What a linear surrogate has and this one has not."""


@dataclass(frozen=True)
class GatedSurrogate(Tabular):
    """A gated neural ODE that stands for a span, and what it is worth; print it.

    It is not linear: there is no operator, so it has no spectrum, and :func:`torchkoopman.unlearn`
    refuses it.

    Example:
        >>> gated = tk.flows.fit_gated(
        ...     model, train.loader(500), "1", "9", steps=100, widths=[16], progress=False
        ... )
        >>> print(gated)
        '1' → '9' on 500 held-out rows, of samples that no fit has seen
        predicted by     R²  parameters
        skip         ...              0
        ridge map    0...          1056
        EDMD         0...
        gnODE        0...
        the gnODE is that after ... of 100 steps, by the R² on 500 other rows
        ...
        >>> edited = tk.swap(model, gated.module, gated.start, gated.end)
    """

    start: str
    """The layer whose output the module takes."""
    end: str
    """The layer whose output it gives."""
    module: Replacement
    """From output tensor to output tensor, to be put in by ``tk.swap(model, module, start, end)``;
    encoder, flow and decoder, in evaluation mode."""
    r2: Mapping[str, float]
    """Predictor → R² on the held-out rows; ``"skip"`` only where widths agree."""
    parameters: Mapping[str, int]
    """Predictor → numbers that it holds, random features included."""
    rows: int
    """Rows that were fitted."""
    held_out: int
    """Rows of the R²."""
    chosen_on: int
    """Rows by which the gradient step was chosen."""
    step: int
    """The gradient step whose weights these are; 0 if none was better than the first ones."""
    steps: int
    """Gradient steps of the training."""

    def beaten_by(self) -> list[str]:
        """Closed forms that do at least as well on the held-out rows."""
        return [name for name, r2 in self.r2.items() if name != GNODE and r2 >= self.r2[GNODE]]

    def table(self) -> Table:
        """A row for each predictor."""
        cells = qualities(*self.r2.values())
        rows = [
            [name, r2, str(self.parameters[name])] for name, r2 in zip(self.r2, cells, strict=True)
        ]
        above = (
            f"{self.start!r} → {self.end!r} on {self.held_out} held-out rows, of samples that no "
            "fit has seen"
        )
        below = [
            f"the gnODE is that after {self.step} of {self.steps} steps, by the R² on "
            f"{self.chosen_on} other rows"
        ]
        if self.beaten_by():
            below.append(f"the gnODE does not beat: {', '.join(self.beaten_by())}")
        return Table(["predicted by", "R²", "parameters"], rows, [above], below)

    def spectrum(self) -> NoReturn:
        """There is none.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"spectrum() asks for an operator. {_said(self)}")

    def pseudospectrum(self) -> NoReturn:
        """There is none.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"pseudospectrum() asks for an operator. {_said(self)}")

    def __getattr__(self, name: str) -> NoReturn:
        if name in _LINEAR:
            raise AttributeError(f"{name!r} is of linear surrogates. {_said(self)}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _said(gated: GatedSurrogate) -> str:
    return (
        f"The gated neural ODE from {gated.start!r} to {gated.end!r} is not linear and has none; "
        "fit a linear surrogate with tk.fit(…), or look at the flow's fixed points with "
        "tk.flows.Flow.of_cell(gated.module.core.encoder[1].cell, torch.zeros(0))."
    )
