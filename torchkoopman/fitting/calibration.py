"""Calibration: the first rows of a stream fix the layers' coordinates, then the rest streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from torchkoopman.fitting.snapshots import trajectories_of, trajectory_state
from torchkoopman.koopman.principal import layer_coordinates
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.totals import total_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from torchkoopman.koopman.coordinates import CoordinateOptions, Coordinates
    from torchkoopman.observe.processes import Processes
    from torchkoopman.observe.trajectory import Trajectory


MASSIVE = 10.0
"""See ``CoordinateOptions.massive``: nonlinear functions of the state need like deviations."""


class Calibration:
    """Holds back trajectories until there are enough rows to choose coordinates.

    Coordinates only decide in which frame the fit works, so they may come from a sample; what is
    fitted in that frame comes from the whole stream, these first rows included.

    What is held are copies, and only of samples with a row that counts: tensors may be written over
    later, and a stream in which nothing counts must not fill the memory.
    """

    def __init__(self, options: CoordinateOptions, rows: int | None) -> None:
        self.options = options
        self.rows = rows
        """Rows to wait for; None: ten per feature of the widest layer, at least 2 000."""
        self.held: list[Trajectory] = []
        self.waits = False
        """Whether to hold back all rows, however many, until processes choose together."""
        self._passed_over = 0

    def add(self, trajectory: Trajectory) -> bool:
        """Hold a trajectory back; True once there are enough."""
        counts = trajectory.counted().any(1).nonzero()[:, 0]
        if len(counts):
            self.held.append(trajectory.select(counts))  # a copy
        self._passed_over += (trajectory.batch - len(counts)) * trajectory.positions
        return self.enough() and not self.waits

    def enough(self, processes: int = 1) -> bool:
        """Whether so many processes have enough rows, if each has as many as this one."""
        if not self.held:
            return False
        held = sum(len(part.flatten(next(iter(part.states.values())))) for part in self.held)
        widest = max(state.shape[-1] for state in self.held[-1].states.values())
        return processes * held >= (max(2000, 10 * widest) if self.rows is None else self.rows)

    def finish(
        self, sample: Trajectory | None = None
    ) -> tuple[list[Coordinates], list[Trajectory]]:
        """Coordinates of the layers, on their device, and the trajectories held back until now.

        They come from ``sample``, or else from the trajectories held back, which are let go only
        if there were rows enough.

        Raises:
            ValueError: too few rows, or none that counts.
        """
        known = self.held if sample is None else [sample]
        if not known:
            raise ValueError(
                f"none of the {self._passed_over} rows that came counts: they are masked out as "
                "padding, or not finite in some layer (probe.report() tells which). Look at the "
                "inputs, and for a layer that overflows."
            )
        moments = self._moments(known[0].layers, known)
        frames = self._chosen(moments, known[0].layers, known[0].dtype)
        return frames, self.released()

    def together(
        self,
        layers: Sequence[str],
        widths: Mapping[str, int],
        precision: torch.dtype,
        processes: Processes,
    ) -> list[Coordinates]:
        """Coordinates from the rows that all processes hold back; the same in all of them.

        Raises:
            ValueError: too few rows, in all processes.
        """
        own = self._moments(layers, self.held)
        moments = total_of(own, widths, processes, processes.device)
        frames: list[Coordinates] = processes.told(
            lambda: self._chosen(moments, layers, precision), 0
        )
        return frames

    def state_dict(self) -> dict[str, Any]:
        """The trajectories held back, as tensors and plain types."""
        held = [trajectory_state(each) for each in self.held]
        return {"held": held, "waits": self.waits, "passed over": self._passed_over}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go on from what :meth:`state_dict` said."""
        self.held, self.waits = trajectories_of(state["held"]), state["waits"]
        self._passed_over = state["passed over"]
        return self

    def released(self) -> list[Trajectory]:
        """The trajectories held back, which are let go."""
        held, self.held = self.held, []
        return held

    def _moments(self, layers: Sequence[str], known: Sequence[Trajectory]) -> Moments:
        """What coordinates are chosen from."""
        moments = Moments([*((a, a) for a in layers), *((a, layers[-1]) for a in layers[:-1])])
        for trajectory in known:
            moments.update(trajectory.rows())
        return moments

    def _chosen(
        self, moments: Moments, layers: Sequence[str], precision: torch.dtype
    ) -> list[Coordinates]:
        unknowns = max(map(moments.features, layers)) if moments.count else 0
        if (rank := self.options.rank) >= 1:
            unknowns = min(unknowns, round(rank))
        require_rows(moments.count, unknowns)
        return [frame.to(precision) for frame in layer_coordinates(moments, layers, self.options)]


def require_rows(rows: float, unknowns: int, remedy: str = "") -> None:
    """Refuse a fit with no more rows than unknowns per output: it would only interpolate.

    Raises:
        ValueError: says how many rows came and how many are needed.
    """
    if rows <= unknowns:
        raise ValueError(
            f"{round(rows)} rows were streamed, but the fit has {unknowns} features per row and "
            f"needs more rows than that. Stream more data{remedy or ', or choose narrower layers'}."
        )


def same_layers(layers: Sequence[str], trajectory: Trajectory) -> None:
    """Refuse a trajectory of other layers than the first one had."""
    if tuple(layers) != trajectory.layers:
        raise ValueError(
            f"the fitter has followed the layers {tuple(layers)}; this trajectory has "
            f"{trajectory.layers}. Use one fitter per probe."
        )
