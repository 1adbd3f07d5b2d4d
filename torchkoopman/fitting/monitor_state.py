"""The state of a training monitor: what of it goes into a checkpoint, and back."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

import torch

from torchkoopman.fitting.resuming import live_state
from torchkoopman.fitting.stepped import VERSION, Stepped
from torchkoopman.observe.interrupts import uninterrupted
from torchkoopman.spectra.tracking import ModeTracker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchkoopman.observe.probe import Probe
    from torchkoopman.spectra.tracks import ModeTracks


class SavedMonitor(Stepped):
    """What a monitor has seen of a training, which goes on where its checkpoint was taken."""

    KIND = "the state of a training monitor"
    fitter: Any
    _probe: Probe | None

    def _begin(self) -> None:
        """Have seen nothing."""
        self._tracker = ModeTracker()
        self._generator = torch.Generator().manual_seed(0)
        """Draws the samples and positions."""
        self._done = self._passes = 0
        """Optimiser steps, and forward passes that the fitter has seen."""
        self._told = 0
        """Passes that the latest spectrum was taken of."""
        self._watching = True
        """Whether the step to come is watched."""
        self._names: tuple[str, ...] = ()
        """The layers, once they are known."""
        self._hindrance = ""
        """What went wrong first, and was warned of."""
        self._given_up = False
        """Whether it watches no further."""

    @property
    def attached(self) -> bool:
        """Whether it watches a model."""
        return self._probe is not None

    @property
    def tracks(self) -> ModeTracks:
        """The modes followed until now.

        Raises:
            ValueError: nothing was logged yet.
        """
        return self._tracker.tracks()

    def state_dict(self) -> dict[str, Any]:
        """All that was seen and followed, as a copy of tensors and plain types.

        Take it after ``step()``, with the model's own: a monitor that loads it goes on as this one
        would.
        """
        return copy.deepcopy(self._state())

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go on from what :meth:`state_dict` returned; :meth:`attach` compares layers and step.

        Raises:
            RuntimeError: the monitor is attached.
            TypeError: no dictionary.
            ValueError: no such state, a damaged one, or one of another fitter; nothing is changed
                then.
        """
        self._require_state(state, {*self._state()})
        try:
            tracker = ModeTracker().load_state_dict(state["tracks"])
            generator, layers = torch.Generator(), tuple(state["layers"])
            generator.set_state(state["draws"])
            done, passes, told = (int(state[name]) for name in ("step", "passes", "told"))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"the state of a TrainingMonitor is damaged or was changed ({error!r}). Take an "
                "earlier one."
            ) from error
        with uninterrupted():
            self.fitter.load_state_dict(state["fitter"])
            self._tracker, self._generator, self._names = tracker, generator, layers
            self._done, self._passes, self._told = done, passes, told
            self._watching = bool(state["watching"])
        return self

    def reset(self) -> Self:
        """Forget all that was seen and followed, for a training that begins anew.

        Raises:
            RuntimeError: the monitor is attached.
        """
        with uninterrupted():
            super().reset()
            self.fitter.reset()
        return self

    def _state(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "step": self._done,
            "layers": self._names,
            "watching": self._watching,
            "passes": self._passes,
            "told": self._told,
            "draws": self._generator.get_state(),
            "tracks": self._tracker.state_dict(),
            "fitter": live_state(self.fitter),
        }
