"""Calibration: the first rows of a stream fix the layers' coordinates, then the rest streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch

from torchkoopman.fitting.snapshots import trajectories_of, trajectory_state
from torchkoopman.koopman.coordinates import resolve_frames
from torchkoopman.koopman.principal import layer_coordinates
from torchkoopman.observe.few_rows import FewRows
from torchkoopman.observe.moments import Moments, same_width
from torchkoopman.observe.totals import total_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from torchkoopman.koopman.coordinates import CoordinateOptions, Coordinates
    from torchkoopman.observe.processes import Processes
    from torchkoopman.observe.trajectory import Trajectory


MASSIVE = 10.0
"""See ``CoordinateOptions.massive``: nonlinear functions of the state need like deviations."""
WIDE = 1024
"""Features of a layer above which ten rows for each are too many to wait for, where a number of
directions is asked for; ten for each direction are enough."""
_COLUMNS = 3000
"""The most rows of all layers whose Gram matrix is formed; its eigenvectors take seconds."""


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
        """Rows to wait for; None: ten per feature of the widest layer, at least 2 000; where that
        is wider than 1 024 and a number of directions is asked for, ten for each of these."""
        self.held: list[Trajectory] = []
        self.waits = False
        """Whether to hold back all rows, however many, until processes choose together."""
        self._passed_over = 0

    def add(self, trajectory: Trajectory) -> bool:
        """Hold a trajectory back; True once there are enough.

        Raises:
            ValueError: its layers have other widths than those held back; it is not held.
        """
        for layer, state in self.held[0].states.items() if self.held else ():
            same_width(layer, state.shape[-1], trajectory.states[layer].shape[-1])
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
        if widest > WIDE and self.options.rank >= 1:
            widest = min(widest, round(self.options.rank))
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
        layers, rows = known[0].layers, [trajectory.rows() for trajectory in known]
        widths = {layer: known[0].states[layer].shape[-1] for layer in layers}
        few = self._few(rows, widths)
        frames = self._chosen(few or _moments(layers, rows), layers, known[0].dtype)
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
        rows = [trajectory.rows() for trajectory in self.held]
        moments: Moments | FewRows | None = None
        if sum(processes.gather(_count(rows))) < max(widths.values()):
            own = [{layer: each.cpu() for layer, each in part.items()} for part in rows]
            moments = self._few([part for parts in processes.gather(own) for part in parts], widths)
        if moments is None:
            moments = total_of(_moments(layers, rows), widths, processes, processes.device)
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

    def _few(
        self, rows: Sequence[Mapping[str, Tensor]], widths: Mapping[str, int]
    ) -> FewRows | None:
        """The rows themselves where the widest layer has more features than there are rows.

        All of them, unless their Gram matrix would be too large; then evenly many are left out.
        """
        count, widest = _count(rows), max(widths.values())
        if not 0 < count < widest:
            return None
        one = resolve_frames(self.options.frames, widths) == "shared"
        most = _COLUMNS // len(widths) if one else _COLUMNS
        if count <= most or not 1 <= self.options.rank < most:
            return FewRows(rows)
        kept = torch.linspace(0, count - 1, most).round().long()
        names = list(rows[0])
        whole = {name: torch.cat([part[name] for part in rows]) for name in names}
        return FewRows([{name: each[kept.to(each.device)] for name, each in whole.items()}])

    def _chosen(
        self, moments: Moments | FewRows, layers: Sequence[str], precision: torch.dtype
    ) -> list[Coordinates]:
        rank = self.options.rank
        unknowns = max(map(moments.features, layers)) if moments.count else 0
        if rank == -1 or rank >= 1:
            require_rows(moments.count, unknowns if rank == -1 else min(unknowns, round(rank)))
        frames = layer_coordinates(moments, layers, self.options)
        require_rows(moments.count, frames[0].size)
        return [frame.to(precision) for frame in frames]


def _count(rows: Sequence[Mapping[str, Tensor]]) -> int:
    return sum(len(next(iter(part.values()))) for part in rows)


def _moments(layers: Sequence[str], rows: Sequence[Mapping[str, Tensor]]) -> Moments:
    """What coordinates are chosen from."""
    moments = Moments([*((a, a) for a in layers), *((a, layers[-1]) for a in layers[:-1])])
    for part in rows:
        moments.update(part)
    return moments


def require_rows(rows: float, unknowns: int, remedy: str = "") -> None:
    """Refuse a fit with no more rows than unknowns per output: it would only interpolate.

    Raises:
        ValueError: says how many rows came and how many are needed.
    """
    if rows <= unknowns:
        few = max(1, min(64, round(rows) // 10))
        remedy = remedy or f", keep fewer directions (rank={few}), or choose narrower layers"
        raise ValueError(
            f"{round(rows)} rows were streamed, but the fit has {unknowns} features per row and "
            f"needs more rows than that. Stream more data{remedy}."
        )


def same_layers(layers: Sequence[str], trajectory: Trajectory) -> None:
    """Refuse a trajectory of other layers than the first one had."""
    if tuple(layers) != trajectory.layers:
        raise ValueError(
            f"the fitter has followed the layers {tuple(layers)}; this trajectory has "
            f"{trajectory.layers}. Use one fitter per probe."
        )


def same_widths(frames: Sequence[Coordinates], trajectory: Trajectory) -> None:
    """Refuse layers of other widths than those their coordinates, if there are, were chosen for."""
    for frame, (layer, state) in zip(frames, trajectory.states.items(), strict=False):
        same_width(layer, frame.features, state.shape[-1])
