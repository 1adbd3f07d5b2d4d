"""What an autoencoder fitter consists of, and how it is saved, loaded and merged."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from torchkoopman.fitting.autoencoder_sync import SyncedAutoencoder
from torchkoopman.fitting.candidates import Candidate
from torchkoopman.fitting.resuming import Resumable
from torchkoopman.fitting.snapshots import fingerprint
from torchkoopman.observe.interrupts import uninterrupted
from torchkoopman.observe.turns import turn_of

if TYPE_CHECKING:
    from torchkoopman.observe.trajectory import Trajectory


class AutoencoderParts(SyncedAutoencoder, Resumable):
    """An autoencoder fitter without its logic."""

    steps_per_update: float
    _seeded: bool
    """Whether the generator is the fitter's own."""

    def update(self, trajectory: Trajectory) -> Self:
        """Take a trajectory in."""
        raise NotImplementedError

    def calibrate(self, sample: Trajectory | None = None) -> Self:
        """Choose coordinates now, from ``sample``, which does not enter the fit, or what came.

        Raises:
            RuntimeError: the fitter is calibrated already.
            ValueError: nothing to calibrate with, or too few rows.
        """
        with turn_of(self), uninterrupted():
            if self._intake.frames:
                raise RuntimeError("the fitter is calibrated already; its rows are in that frame.")
            self._intake.calibrate(sample)
        return self

    def reset(self) -> Self:
        """Forget data and weights; a generator that was given goes on where it stands."""
        with turn_of(self), uninterrupted():
            if self._seeded:
                self._generator.manual_seed(0)
            self._intake = self._intake.emptied()
            self._trainer, self._outcome, self._notes, self._owed = None, None, (), 0.0
            self._syncs, self._processes = (0, ""), None
        return self

    @property
    def steps(self) -> int:
        """Gradient steps taken until now."""
        return 0 if self._trainer is None else self._trainer.done

    def _options(self) -> dict[str, Any]:
        options = {**asdict(self._design), "weights": asdict(self._design.weights)}
        return {
            **options,
            "dynamics": self.dynamics,
            "batch": self.batch,
            "steps_per_update": self.steps_per_update,
            "tail": None if self.tail is None else fingerprint(self.tail),
            **self._intake.options(),
        }

    def _layers(self) -> tuple[str, ...]:
        return self._intake.layers

    def _features(self) -> dict[str, int] | None:
        widths: dict[str, int] | None = self._intake.measured()["widths"]
        return widths

    def _state(self) -> dict[str, Any]:
        outcome = self._outcome
        return {
            "trainer": None if self._trainer is None else self._trainer.state_dict(),
            "owed": self._owed,
            "outcome": None if outcome is None else outcome.state_dict(),
            "notes": list(self._notes),
            "intake": self._intake.state_dict(),
            "draws": self._generator.get_state(),
            "syncs": self._syncs,
        }

    def _load(self, state: dict[str, Any]) -> None:
        self._intake = self._intake.emptied()
        outcome, trainer = state["outcome"], state["trainer"]
        self._syncs, self._processes = tuple(state["syncs"]), None
        self._outcome = None if outcome is None else Candidate.of(outcome)
        self._owed, self._notes = state["owed"], tuple(state["notes"])
        before = self._generator.get_state()
        try:
            self._intake.load_state_dict(state["intake"])
            self._trainer = None if trainer is None else self._restored(trainer)
            self._generator.set_state(state["draws"])
        except Exception:
            self._generator.set_state(before)
            raise

    def _merge(self, other: Self) -> None:
        """Its rows; its weights stay behind, for those of two trainings have no meaning together.

        Steps that the other one has taken are not taken again.
        """
        self._outcome, self._notes = None, ()
        if other._intake.frames:
            self._intake.merge(other._intake)
        for trajectory in other._intake.held:
            self.update(trajectory)
