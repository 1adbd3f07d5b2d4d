"""What an autoencoder takes in: rows become coordinates, and coordinates places in a reservoir."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from torchkoopman.fitting.calibration import MASSIVE, Calibration, same_layers, same_widths
from torchkoopman.fitting.drift import Renewal
from torchkoopman.fitting.identity import row_ids
from torchkoopman.fitting.intake_state import IntakeParts
from torchkoopman.fitting.outliers import BOUND, plausible, without
from torchkoopman.fitting.replay import Reservoir
from torchkoopman.fitting.streams import NO_DATA
from torchkoopman.koopman.coordinates import CoordinateOptions, resolve_frames
from torchkoopman.observe.warned import warn

if TYPE_CHECKING:
    from torchkoopman.koopman.coordinates import Coordinates, Frames
    from torchkoopman.observe.trajectory import Trajectory


class Intake(IntakeParts):
    """Holds rows back until the layers' coordinates are chosen, then stores all in a reservoir.

    Rows that no fit should follow (see ``outliers.py``) are left out, counted, and spoken of once.

    Args:
        rank: principal directions kept of each layer.
        frames: one for all layers, or one each.
        calibration: rows held back until then; None for ten per feature.
        replay_bytes: memory of the reservoir.
        generator: draws places in the reservoir, and batches from it.
        halflife: of the reservoir, in rows; with one, coordinates are renewed where the data drift.
    """

    def __init__(
        self,
        rank: int | float,
        frames: Frames,
        calibration: int | None,
        replay_bytes: int,
        generator: torch.Generator,
        halflife: float | None = None,
    ) -> None:
        self._drawn = Reservoir(replay_bytes, generator, halflife)
        self._renewal = None if halflife is None else Renewal(halflife, replay_bytes)
        self._gone = 0
        self.frames: list[Coordinates] = []
        """Coordinates of the layers, in the precision of the first states; empty until chosen."""
        self._frames: Frames = frames
        options = CoordinateOptions(rank, frames=frames, massive=MASSIVE)
        self._calibration = Calibration(options, calibration)

    @property
    def kind(self) -> Literal["shared", "aligned"]:
        """What frames the layers have."""
        widths = {layer: state.shape[-1] for layer, state in self.latest.states.items()}
        return resolve_frames(self._frames, widths)

    @property
    def latest(self) -> Trajectory:
        """The latest trajectory, without the rows that were left out.

        Raises:
            ValueError: none has come.
        """
        if self._latest is None:
            raise ValueError(NO_DATA)
        return self._latest

    def add(self, trajectory: Trajectory) -> None:
        """Take a trajectory in."""
        if self._latest is not None:
            same_layers(self._latest.layers, trajectory)
        same_widths(self.frames, trajectory)
        enough = not self.frames and self._calibration.add(trajectory)
        self._latest = trajectory
        if self.frames:
            self._store(trajectory)
        elif enough:
            self.calibrate()

    def calibrate(self, sample: Trajectory | None = None) -> None:
        """Choose coordinates from a sample or what came until now, and store the latter.

        Raises:
            ValueError: too few rows, or none that can be used.
        """
        if sample is None:
            self.latest  # noqa: B018, raises where nothing has come
        elif self._latest is not None:
            same_layers(self._latest.layers, sample)
        self._calibration.held = self._usable(self._calibration.held)
        if sample is not None:
            sample = without(sample, plausible([sample]))
            if self._renewal is not None:
                self._renewal.pinned = True
        self.frames, held = self._calibration.finish(sample)
        for trajectory in held:
            self._store(trajectory)

    @property
    def rows(self) -> int:
        """Rows offered to the reservoir until now."""
        return self._gone + self.known_rows

    def emptied(self) -> Intake:
        """An intake without any rows yet, drawing from the same generator."""
        options, kept = self._calibration.options, self._drawn
        settings = options.rank, self._frames, self._calibration.rows
        return Intake(*settings, kept.max_bytes, kept.generator, kept.halflife)

    def renewed(self) -> list[Coordinates] | None:
        """Renew the coordinates if the latest trajectory shows that the data have left them.

        Returns:
            The coordinates until now; None if they stay.
        """
        renewal, before = self._renewal, self.frames
        if renewal is None or not renewal.due(self.latest, before, 0):
            return None
        try:
            self._calibration.held = self._usable(renewal.window.held)
            self.frames, held = self._calibration.finish()
        except ValueError as error:  # a layer that is constant now
            self._calibration.held, renewal.hindrance = [], str(error)
            return None
        self._gone += self._drawn.seen - renewal.window.count
        self._drawn = self._drawn.emptied()
        for trajectory in held:
            self._store(trajectory)
        renewal.renewed()
        return before

    @property
    def held(self) -> tuple[Trajectory, ...]:
        """What is held back for the calibration."""
        return tuple(self._calibration.held)

    def spreads(self) -> Tensor:
        """Root mean square of each layer's coordinates about their mean, ``(layers,)``."""
        paths = self.reservoir.trained(_SPREAD_ROWS)
        return (paths - paths.mean(0)).square().mean((0, 2)).sqrt().clamp(min=1e-6)

    def notes(self) -> tuple[str, ...]:
        """What a record should say of the rows."""
        drift = () if self._renewal is None else self._renewal.notes()
        if not self.left_out:
            return drift
        rows = self.left_out + self.rows
        return (
            *drift,
            f"{self.left_out} of {rows} rows were left out: not finite, or more than {BOUND:.0e} "
            "deviations from the others.",
        )

    def _store(self, trajectory: Trajectory) -> None:
        """Offer a trajectory's rows to the reservoir, in coordinates, but for those far out."""
        rows = trajectory.rows().values()
        paths = torch.stack(
            [f(x.to(f.weight.dtype)).float() for f, x in zip(self.frames, rows, strict=True)], 1
        )
        good = (paths.abs() <= BOUND).flatten(1).all(1)  # false for what is not a number
        labels, samples = trajectory.row_labels(), row_ids(trajectory)
        if not good.all():
            self._leave_out(int((~good).sum()))
            paths, labels = paths[good], None if labels is None else labels[good]
            self._latest = without(trajectory, good)
        self._drawn.add(paths, labels, samples[good])

    def _usable(self, held: list[Trajectory]) -> list[Trajectory]:
        """Trajectories held back for the calibration, without the rows that would spoil it.

        Raises:
            ValueError: none is left.
        """
        if not held:
            return held
        good = plausible(held)
        if good.all():
            return held
        if not good.any():
            raise ValueError(
                f"none of the {len(good)} rows that came first is finite in all layers "
                f"{held[0].layers}, so there is nothing to choose coordinates from. Look for the "
                "layer that overflows, or stream states that do not."
            )
        self._leave_out(int((~good).sum()))
        sizes = [int(each.counted().sum()) for each in held]
        kept = [without(*pair) for pair in zip(held, torch.split(good, sizes), strict=True)]
        self._latest = kept[-1]
        return kept

    def _leave_out(self, rows: int) -> None:
        """Count rows that are left out, and say so at the first of them."""
        if not self.left_out:
            warn(
                f"{rows} rows are not finite or lie more than {BOUND:.0e} deviations from the "
                "others; the autoencoder leaves such rows out (record.notes counts them)."
            )
        self.left_out += rows


_SPREAD_ROWS = 8192
"""Rows of the reservoir that the layers' spreads are taken of."""
