"""Drift: whether the data have left the frame that a fitter works in, and the rows to renew it.

Coordinates come from the first rows of a stream. While a network learns its states move on, grow
and take new directions, until features drawn for the old frame say nothing of the new states.
Moments of features cannot change their frame; so a fitter that forgets keeps its latest rows.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch

from torchkoopman.fitting.snapshots import trajectories_of, trajectory_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchkoopman.koopman.coordinates import Coordinates
    from torchkoopman.observe.trajectory import Trajectory

_SHIFT = 0.5
"""A mean that moved by more than so many standard deviations of its layer has drifted, …"""
_SCALE = 1.5
"""… as has a standard deviation that grew or shrank by more than this factor, …"""
_LOST = 0.02
"""… and a layer with more than this share of its variance in directions the frame leaves out."""


_KEPT = 3
"""Halflives of rows to renew from: they have held 7/8 of all weight."""
_CHECKS = 2
"""Checks for drift in a halflife."""
_TINY = 1e-30


@dataclass(frozen=True)
class Standing:
    """How the rows of each layer stand in its coordinates."""

    means: tuple[torch.Tensor, ...]
    """Layer by layer, ``(coordinates,)``."""
    spreads: tuple[float, ...]
    """Root of the summed variances of the coordinates."""
    lost: tuple[float, ...]
    """Share of the layer's variance that its coordinates leave out."""

    @classmethod
    @torch.no_grad()
    def of(cls, frames: Sequence[Coordinates], trajectories: Sequence[Trajectory]) -> Standing:
        """Made of the counted rows of some trajectories, whose positions may differ."""
        means, spreads, lost = [], [], []
        for frame, layer in zip(frames, trajectories[0].layers, strict=True):
            parts = [each.flatten(each.states[layer]) for each in trajectories]
            state = torch.cat(parts).to(frame.weight)
            coordinates = frame(state)
            left = state - frame.inverse(coordinates)
            total = state.var(0, correction=0).sum().clamp(min=_TINY)
            means.append(coordinates.mean(0))
            spreads.append(coordinates.var(0, correction=0).sum().sqrt().clamp(min=_TINY).item())
            lost.append((left.var(0, correction=0).sum() / total).item())
        return cls(tuple(means), tuple(spreads), tuple(lost))

    def drifted(self, since: Standing) -> bool:
        """Whether a layer has moved beyond a threshold."""
        return any(
            (mean - since.means[depth]).norm().item() > _SHIFT * since.spreads[depth]
            or abs(math.log(self.spreads[depth] / since.spreads[depth])) > math.log(_SCALE)
            or self.lost[depth] - since.lost[depth] > _LOST
            for depth, mean in enumerate(self.means)
        )


class Window:
    """The latest trajectories of a stream, bounded in rows and bytes.

    Args:
        rows: at most so many are kept.
        max_bytes: memory of their states; the latest trajectory is kept in any case.
    """

    def __init__(self, rows: float, max_bytes: int) -> None:
        self.rows = rows
        self.max_bytes = max_bytes
        self._held: deque[tuple[Trajectory, int, int]] = deque()
        self._sums = [0, 0]

    @property
    def held(self) -> list[Trajectory]:
        """The trajectories, oldest first."""
        return [trajectory for trajectory, _, _ in self._held]

    @property
    def count(self) -> int:
        """Counted rows held."""
        return self._sums[0]

    def add(self, trajectory: Trajectory) -> int:
        """Keep one, and let the oldest go that there is no room for; returns its counted rows."""
        states = trajectory.states.values()
        rows = added = len(trajectory.flatten(next(iter(states))))
        size = sum(state.numel() * state.element_size() for state in states)
        self._held.append((trajectory, rows, size))
        self._sums = [self._sums[0] + rows, self._sums[1] + size]
        while len(self._held) > 1 and (self._sums[0] > self.rows or self._sums[1] > self.max_bytes):
            _, rows, size = self._held.popleft()
            self._sums = [self._sums[0] - rows, self._sums[1] - size]
        return added

    def latest(self, rows: float) -> list[Trajectory]:
        """The last trajectories that hold so many rows together, or all."""
        chosen: list[Trajectory] = []
        for trajectory, count, _ in reversed(self._held):
            chosen.append(trajectory)
            rows -= count
            if rows <= 0:
                break
        return chosen[::-1]


class Renewal:
    """Watches a fitter's rows for drift, and keeps those that a new frame can be made of.

    Args:
        halflife: of the fitter, in rows.
        max_bytes: memory of the rows kept.
    """

    def __init__(self, halflife: float, max_bytes: int) -> None:
        self.halflife = halflife
        self.max_bytes = max_bytes
        self.window = Window(_KEPT * halflife, max_bytes)
        self.pinned = False
        """True where the user gave the sample for the frame: then it stays."""
        self.times = 0
        """How often the frame was renewed."""
        self.hindrance = ""
        """Why the frame stands although the data have left it; empty if that is not so."""
        self._unchecked = 0
        self._standing: Standing | None = None

    def due(self, trajectory: Trajectory, frames: Sequence[Coordinates], latent: int) -> bool:
        """Take in a trajectory that the fitter has seen; True if the frame is to be renewed now.

        Args:
            trajectory: what the fitter was updated with.
            frames: of its layers; empty before calibration.
            latent: number of observables; frame and fit need more rows than their unknowns.
        """
        self._unchecked += self.window.add(trajectory)
        if not frames or self.window.count == 0:
            return False
        if self._standing is None:
            self._standing, self._unchecked = Standing.of(frames, self.window.held), 0
        if self._unchecked < self.halflife / _CHECKS:
            return False
        self._unchecked = 0
        latest = self.window.latest(self.halflife / _CHECKS)
        if not Standing.of(frames, latest).drifted(self._standing):
            self.hindrance = ""
            return False
        if self.pinned:
            self.hindrance = "it came from calibrate(sample)"
        elif self.window.count <= max(latent, *(frame.features for frame in frames)):
            self.hindrance = f"the {self.window.count} rows kept (replay_bytes=) are too few"
        else:
            return True
        return False

    def renewed(self) -> None:
        """The fitter has a new frame, from the rows of the window."""
        self.times, self.hindrance, self._standing = self.times + 1, "", None

    def state_dict(self) -> dict[str, Any]:
        """Where the watch stands, and the rows kept."""
        standing = self._standing
        return {
            "held": [trajectory_state(trajectory) for trajectory in self.window.held],
            "pinned": self.pinned,
            "times": self.times,
            "hindrance": self.hindrance,
            "unchecked": self._unchecked,
            "standing": None if standing is None else vars(standing),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go on from what :meth:`state_dict` said."""
        self.window = Window(self.window.rows, self.max_bytes)
        for trajectory in trajectories_of(state["held"]):
            self.window.add(trajectory)
        self.pinned, self.times, self.hindrance = (
            state["pinned"],
            state["times"],
            state["hindrance"],
        )
        self._unchecked, standing = state["unchecked"], state["standing"]
        self._standing = None if standing is None else Standing(**standing)
        return self

    def merge(self, other: Renewal) -> Self:
        """Keep the other's rows too; this one's count as the later ones."""
        window = Window(self.window.rows, self.max_bytes)
        for trajectory in (*other.window.held, *self.window.held):
            window.add(trajectory)
        self.window, self.pinned = window, self.pinned or other.pinned
        return self

    def notes(self) -> tuple[str, ...]:
        """What a reader of the fit must know of its frame."""
        notes = []
        if self.times:
            times = "once" if self.times == 1 else f"{self.times} times"
            notes.append(f"the data drifted: frame and observables were renewed {times}")
        if self.hindrance:
            notes.append(f"the data have left the frame, which stays because {self.hindrance}")
        return tuple(notes)
