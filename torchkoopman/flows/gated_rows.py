"""The rows of a span that a gated neural ODE is fitted to, and what of them it cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from torchkoopman.flows.gated_training import Scale
from torchkoopman.observe.even_rows import EvenRows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from torchkoopman.observe.trajectory import Trajectory
    from torchkoopman.observe.views import View

_TENTH = 10
_HELD, _CHOOSES = 9, 4
"""Which of ten samples are held out for the report, and which choose the gradient step."""
_CONSTANT = 1e-12
"""A state whose spread is a smaller share of its size is constant."""


class Ends:
    """Listens to a stream and keeps rows of both ends, of samples to fit, to choose and to report.

    Samples are parted, not rows: the positions of one image are alike.
    """

    contextual = False

    def __init__(self, start: str, end: str, rows: int, generator: torch.Generator) -> None:
        self.start, self.end = start, end
        self.views: Mapping[str, View] = {}
        self._seen = 0
        self._parts = {
            kind: EvenRows(rows, self._states, generator) for kind in ("fit", "choose", "report")
        }

    def update(self, trajectory: Trajectory) -> None:
        """Take the rows of one trajectory."""
        if trajectory.layers != (self.start, self.end):
            raise ValueError(
                f"fit_gated() got start={self.start!r} and end={self.end!r}, but a forward pass "
                f"goes through {', '.join(map(repr, trajectory.layers))}, in this order. Give two "
                "layers in the order in which they run, of many calls one by its number, 'name#0'."
            )
        self.views = trajectory.views
        index = torch.arange(self._seen, self._seen + trajectory.batch) % _TENTH
        self._seen += trajectory.batch
        kinds = {"report": index == _HELD, "choose": index == _CHOOSES}
        kinds["fit"] = ~(kinds["report"] | kinds["choose"])
        for kind, samples in kinds.items():
            if samples.any():
                self._parts[kind].update(trajectory.select(samples.to(trajectory.device)))

    def pairs(self, kind: str) -> tuple[Tensor, Tensor]:
        """Rows of the start and of the end.

        Raises:
            ValueError: there are none.
        """
        kept = self._parts[kind].rows()
        if not kept or not len(kept["start"]):
            raise ValueError(
                f"fit_gated() fits on eight of ten samples, chooses by one and reports on one; of "
                f"{self._seen} samples there is no row to {kind}. Give twenty samples or more."
            )
        return kept["start"], kept["end"]

    def _states(self, trajectory: Trajectory) -> dict[str, Tensor]:
        own = trajectory.dtype
        states = {"start": trajectory.states[self.start], "end": trajectory.states[self.end]}
        return {name: state.to(own) for name, state in states.items()}


def require_way_back(layer: str, view: View) -> None:
    """Refuse a state that was made in a way that a swap cannot undo."""
    if view.function is not None or view.layout.pooled:
        how = f"the function {view.function!r}" if view.function else f"{view.layout.pattern!r}"
        raise ValueError(
            f"fit_gated() read layer {layer!r} through {how}, and its module could not be put back "
            "through that. Choose a tensor by its path, and a layout that keeps all axes."
        )


def require_spread(layer: str, rows: Tensor, what: str) -> None:
    """Refuse rows that are all the same: nothing to learn, and no variance to explain."""
    scale = Scale.of(rows)
    if scale.size <= _CONSTANT * rows.double().square().mean().sqrt():
        raise ValueError(
            f"layer {layer!r} is constant over the {len(rows)} row(s) that fit_gated() would "
            f"{what}, so there is nothing to explain. Choose other layers, or give more samples: "
            "of ten, eight are fitted, one chooses the step, and one is for the report."
        )
