"""What an autoencoder takes in of many processes: one frame, and one sample of all their rows."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

import torch

from torchkoopman.fitting.replay import Reservoir
from torchkoopman.fitting.streams import NO_DATA
from torchkoopman.fitting.syncing import joined, joined_of_all
from torchkoopman.observe.processes import digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchkoopman.fitting.calibration import Calibration
    from torchkoopman.koopman.coordinates import Coordinates, Frames
    from torchkoopman.observe.processes import Processes
    from torchkoopman.observe.trajectory import Trajectory

_BEGINNING = 64
"""Samples of the latest trajectory that all processes take over."""


class SharedIntake:
    """Rows of all processes at the latest sync, and those of this one since."""

    frames: list[Coordinates]
    left_out = 0
    """Rows that no fit should follow."""
    _frames: Frames
    _calibration: Calibration
    _latest: Trajectory | None = None
    _drawn: Reservoir
    """Sample of this process's rows since the latest sync."""
    _shared: Reservoir | None = None
    """Sample of the rows of all processes until then."""
    _joined: tuple[int, Reservoir] | None = None
    """Both joined, and how many rows of this process they had."""
    _counted = 0
    """Rows left out that all processes know of."""

    def _usable(self, held: list[Trajectory]) -> list[Trajectory]:
        raise NotImplementedError

    def _leave_out(self, rows: int) -> None:
        raise NotImplementedError

    def _store(self, trajectory: Trajectory) -> None:
        raise NotImplementedError

    @property
    def known_rows(self) -> int:
        """Rows that the reservoir is a sample of."""
        return self._drawn.seen + (0 if self._shared is None else self._shared.seen)

    @property
    def reservoir(self) -> Reservoir:
        """A sample of all rows known here: of all processes at the latest sync, its own since."""
        if self._shared is None:
            return self._drawn
        seen = self._drawn.seen
        if self._joined is None or self._joined[0] != seen:
            self._joined = seen, joined([self._shared, self._drawn], seen)
        return self._joined[1]

    @property
    def unseen(self) -> bool:
        """Whether nothing has come."""
        return self._latest is None

    @property
    def halflife(self) -> float | None:
        """Halflife of the reservoir, in rows."""
        return self._drawn.halflife

    @property
    def holding_back(self) -> Calibration | None:
        """The calibration, until it has ended."""
        return None if self.frames else self._calibration

    @property
    def new_rows(self) -> int:
        """Trajectories held back and rows that came since the latest sync."""
        return len(self._calibration.held) + self._drawn.seen

    def measured(self) -> dict[str, Any]:
        """``"widths"`` and ``"dtype"`` of the layers, and the ``"calibration"``, if known."""
        known: dict[str, Any] = {"widths": None, "dtype": None, "calibration": None}
        if self._latest is not None:
            states = self._latest.states
            known["widths"] = {layer: state.shape[-1] for layer, state in states.items()}
            known["dtype"] = str(self._latest.dtype)
        if self.frames:
            tensors = [tensor for frame in self.frames for tensor in frame.state_dict().values()]
            known["calibration"] = digest(*tensors)
        return known

    def shared_state(self) -> dict[str, Any]:
        """What all processes know of, as tensors and plain types."""
        shared = None if self._shared is None else self._shared.state_dict()
        return {"shared": shared, "counted": self._counted}

    def load_shared(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`shared_state` said; draws are made from one's own generator."""
        self._shared, self._joined, self._counted = None, None, state["counted"]
        if state["shared"] is not None:
            # All draw from one generator, which the reservoir of one's own rows has set.
            self._shared = self._drawn.emptied()
            self._shared.load_state_dict(state["shared"])

    def shares_nothing_with(self, other: SharedIntake) -> None:
        """Refuse rows that both have from the same sync.

        Raises:
            ValueError: there are some.
        """
        mine, theirs = self._shared, other._shared
        if mine is None or theirs is None or mine.seen != theirs.seen:
            return
        if torch.equal(mine[:][0], theirs[:][0]):
            raise ValueError(
                "both fitters hold the rows of the same sync, which would count twice; after a "
                "sync every process has all rows, so take one of them."
            )

    def united(
        self,
        processes: Processes,
        said: Sequence[Mapping[str, Any]],
        agreed: Mapping[str, Any],
        generator: torch.Generator,
        syncs: int,
        first: int,
    ) -> Self:
        """What all processes have taken in; this one stays as it is.

        Args:
            processes: those that take part.
            said: what they said of themselves, :meth:`measured` among it.
            agreed: what they have in common.
            generator: of the draws from now on.
            syncs: how many there were.
            first: the process whose paths held out stay held out, if nothing is shared yet.

        Raises:
            ValueError: nothing has come to any of them, or too little to choose coordinates.
        """
        new = copy.copy(self)
        seen = [rank for rank, each in enumerate(said) if each["widths"] is not None]
        if not seen:
            raise ValueError(NO_DATA)
        mine = self._latest
        latest = processes.told(lambda: None if mine is None else _beginning(mine), seen[0])
        device = processes.device if mine is None else mine.device
        new._latest = latest.to(device)
        calibrated = [rank for rank, each in enumerate(said) if each["calibration"] is not None]
        if len(calibrated) < processes.size:
            new._drawn = Reservoir(self._drawn.max_bytes, generator)
            new._calibration = copy.copy(self._calibration)
            new._calibrate_with(processes, calibrated, agreed, device)
        shared = joined_of_all(self._shared, new._drawn, processes, device, syncs, first)
        shared.generator = generator
        new._shared, new._joined = shared, None
        new._drawn = Reservoir(self._drawn.max_bytes, generator)
        new.left_out = self._counted + sum(processes.gather(new.left_out - self._counted))
        new._counted, new._latest = new.left_out, latest.to(device)
        return new

    def _calibrate_with(
        self,
        processes: Processes,
        calibrated: Sequence[int],
        agreed: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        """Take over the coordinates of others, or choose them with all others."""
        if not self.frames:
            try:
                self._calibration.held = self._usable(self._calibration.held)
            except ValueError:  # no row of this process is finite
                self._leave_out(sum(int(each.full_mask().sum()) for each in self._calibration.held))
                self._calibration.held = []
        if calibrated:
            frames = processes.told(lambda: self.frames, calibrated[0])
        else:
            dtype = getattr(torch, agreed["dtype"].removeprefix("torch."))
            widths = agreed["widths"]
            frames = self._calibration.together(list(widths), widths, dtype, processes)
        if not self.frames:
            self.frames = [frame.to(device) for frame in frames]
            for trajectory in self._calibration.released():
                self._store(trajectory)


def _beginning(trajectory: Trajectory) -> Trajectory:
    """The first samples, in memory of their own."""
    return trajectory.select(torch.arange(min(_BEGINNING, trajectory.batch)))
