"""What listens to a fit's stream beside the fitter, and who is given which rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from torchkoopman.fitting.resuming import live_state
from torchkoopman.fitting.snapshots import trajectories_of, trajectory_state
from torchkoopman.observe.delivery import looks_along

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchkoopman.fitting.edmd import EDMDFitter
    from torchkoopman.observe.trajectory import Trajectory


class Limited:
    """Passes trajectories on until there were enough rows."""

    def __init__(self, listener: EDMDFitter, rows: int) -> None:
        self.listener = listener
        self.rows = rows
        self.contextual = looks_along(listener.update)

    def update(self, trajectory: Trajectory) -> None:
        """Pass one on, if more are wanted."""
        if self.rows > 0:
            self.listener.update(trajectory)
            self.rows -= int(trajectory.counted().sum())

    def state_dict(self) -> dict[str, Any]:
        """The listener's state, and how many rows it still needs."""
        return {"rows": self.rows, "listener": live_state(self.listener)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` said."""
        self.rows = state["rows"]
        self.listener.load_state_dict(state["listener"])


class Holdout:
    """Passes every sample on but each tenth, up to a limit; those it keeps for the evaluation."""

    def __init__(self, limit: int, listeners: list[Any]) -> None:
        self.limit = limit
        self.listeners = listeners
        self.held: list[Trajectory] = []
        self.rows = 0
        """Rows of all samples, masked ones included."""
        self._seen = 0

    @property
    def contextual(self) -> bool:
        """Whether one of the listeners needs the neighbours of a row."""
        return any(looks_along(listener.update) for listener in self.listeners)

    def update(self, trajectory: Trajectory) -> None:
        """Split one trajectory's samples."""
        index = torch.arange(self._seen, self._seen + trajectory.batch)
        out = (index % 10 == 9) & ((index + 1) // 10 <= self.limit)
        every = trajectory.batch * trajectory.positions
        self._seen += trajectory.batch
        self.rows += every if trajectory.chosen is None else trajectory.chosen.numel()
        if out.any():
            self.held.append(trajectory.select(out))
            trajectory = trajectory.select(~out)
        if trajectory.batch:
            for listener in self.listeners:
                listener.update(trajectory)

    def state_dict(self) -> dict[str, Any]:
        """What was held out, and what the listeners have learnt, as tensors and plain types."""
        return {
            "held": [trajectory_state(each) for each in self.held],
            "rows": self.rows,
            "seen": self._seen,
            "listeners": [live_state(each) for each in self.listeners],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` said."""
        for listener, known in zip(self.listeners, state["listeners"], strict=True):
            listener.load_state_dict(known)
        self.held = trajectories_of(state["held"])
        self.rows, self._seen = state["rows"], state["seen"]
