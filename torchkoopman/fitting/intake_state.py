"""What an intake of rows consists of, and how it is saved, loaded and merged."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

from torchkoopman.fitting.intake_sync import SharedIntake
from torchkoopman.fitting.resuming import same_calibration
from torchkoopman.fitting.snapshots import (
    fingerprint,
    frames_of,
    frames_state,
    trajectory_of,
    trajectory_state,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchkoopman.fitting.drift import Renewal


class IntakeParts(SharedIntake):
    """An intake without its logic."""

    _renewal: Renewal | None
    """With a halflife only."""
    _gone: int
    """Rows seen by reservoirs before this one."""

    def options(self) -> dict[str, Any]:
        """What it was made with, as plain types."""
        return {
            "rank": self._calibration.options.rank,
            "frames": self._frames,
            "calibration": self._calibration.rows,
            "replay_bytes": self._drawn.max_bytes,
            "halflife": self._drawn.halflife,
        }

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers followed; none before the first trajectory."""
        return () if self._latest is None else self._latest.layers

    def state_dict(self) -> dict[str, Any]:
        """Rows kept and held back, and the coordinates, as tensors and plain types."""
        return {
            "frames": frames_state(self.frames),
            "calibration": self._calibration.state_dict(),
            "latest": trajectory_state(self._latest),
            "gone": self._gone,
            "left out": self.left_out,
            "renewal": None if self._renewal is None else self._renewal.state_dict(),
            "reservoir": self._drawn.state_dict(),
            **self.shared_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go on from what :meth:`state_dict` said; the generator is set to where it stood."""
        self.frames = frames_of(state["frames"])
        self._calibration.load_state_dict(state["calibration"])
        self._latest = trajectory_of(state["latest"])
        self._gone, self.left_out = state["gone"], state["left out"]
        if self._renewal is not None:
            self._renewal.load_state_dict(state["renewal"])
        self._drawn.load_state_dict(state["reservoir"])
        self.load_shared(state)
        return self

    def merge(self, other: Self) -> Self:
        """Take in the rows that another one has kept, of the same coordinates.

        Raises:
            ValueError: other coordinates; nothing is changed then.
        """
        if self._latest is None and not self.frames:
            self.frames = copy.deepcopy(other.frames)
        mine, theirs = ([fingerprint(each) for each in part.frames] for part in (self, other))
        same_calibration(mine, theirs)
        self.shares_nothing_with(other)
        self._drawn.merge(other.reservoir)
        self._gone += other._gone
        self.left_out += other.left_out
        if self._renewal is not None and other._renewal is not None:
            self._renewal.merge(other._renewal)
        if self._latest is None:
            self._latest = other._latest
        return self
