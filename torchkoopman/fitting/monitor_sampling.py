"""What a monitor takes of a step that it watches, and of what it took: rows, and spectra."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from torchkoopman.fitting.monitor_state import SavedMonitor
from torchkoopman.observe.causes import why_nothing
from torchkoopman.observe.warned import warn

if TYPE_CHECKING:
    from torchkoopman.fitting.monitor_arguments import Log
    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.probe import Probe
    from torchkoopman.observe.trajectory import Trajectory
    from torchkoopman.spectra.spectrum import Spectrum


class SamplingMonitor(SavedMonitor):
    """A monitor that gives some rows to its fitter, and logs what the fitter has learnt."""

    log: Log | None
    sample_every: int
    rows: int

    @property
    def sampled(self) -> str:
        """What of the training the fitter sees, in a sentence."""
        return (
            f"sampled: one optimiser step of every {self.sample_every}, at most {self.rows} rows "
            f"of each of its forward passes; {self._passes} passes until step {self._done}"
        )

    def _take(self, trajectory: Trajectory) -> None:
        """Give the fitter a sample of a forward pass."""
        each = trajectory.positions if trajectory.chosen is None else trajectory.chosen.shape[1]
        most = max(1, self.rows // each)
        if trajectory.batch > most:
            order = torch.randperm(trajectory.batch, generator=self._generator)
            trajectory = trajectory.select(order[:most].sort().values.to(trajectory.device))
        try:
            # A few rows: so a state saved on one device goes on where the training is on another.
            self.fitter.update(trajectory.to(torch.device("cpu")))
        except (ValueError, TypeError, RuntimeError) as error:
            if not self._passes:
                raise
            self._given_up = True
            self._hinder(f"the monitor watches no further, for its fitter refused a pass: {error}")
            assert self._probe is not None, "it has called"
            self._probe.detach(quiet=True)
        else:
            self._passes += 1

    def _heed(self, probe: Probe) -> None:
        """Say so, after the first step that was watched, if nothing could be read in it."""
        if not self._passes and not self._hindrance:
            report = probe.report()
            why = why_nothing(report) or "; ".join(str(report).splitlines()[:2])
            self._hinder(f"the monitor could read nothing of the first step it watched: {why}")

    def _take_spectrum(self) -> None:
        """Log the surrogate as it is now, or say why there is none."""
        known, self._told = self._told, self._passes
        if known == self._passes and known:
            self._hinder(
                f"there is no spectrum at step {self._done}, for nothing was read since the latest "
                f"one; one step of every {self.sample_every} is watched, and in training mode."
            )
            return
        try:
            surrogate = self.fitter.surrogate
            spectrum = in_features(surrogate, surrogate.spectrum())
            tracks = self._tracker.add(spectrum, self._done).tracks()
        except (ValueError, RuntimeError) as error:
            self._hinder(f"there is no spectrum at step {self._done}, nor perhaps later: {error}")
            return
        if self.log is not None:
            notes = (*surrogate.record.notes, self.sampled)
            noted = surrogate.with_(record=replace(surrogate.record, notes=notes))
            try:
                self.log(noted, self._done, tracks=tracks)
            except (ValueError, TypeError, RuntimeError, OSError) as error:
                self._hinder(f"the spectrum of step {self._done} could not be written: {error}")

    def _hinder(self, why: str) -> None:
        """Warn of the first thing that goes wrong."""
        if not self._hindrance:
            warn(f"not all is monitored: {why}")
        self._hindrance = self._hindrance or why


def in_features(surrogate: Surrogate, spectrum: Spectrum) -> Spectrum:
    """The spectrum with its modes in the features of the last layer, as unit columns."""
    vectors = surrogate.modes(surrogate.layers[-1]).vectors
    norms = vectors.norm(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
    return replace(spectrum, modes=vectors / norms)
