"""What an EDMD fitter consists of, and how it is saved, loaded and merged."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch

from torchkoopman.fitting.drift import Renewal
from torchkoopman.fitting.edmd_sync import SyncedEDMD
from torchkoopman.fitting.resuming import same_calibration
from torchkoopman.fitting.snapshots import fingerprint, frames_of, frames_state
from torchkoopman.koopman.observables import Dictionary


class EDMDParts(SyncedEDMD):
    """An EDMD fitter without its logic."""

    def _options(self) -> dict[str, Any]:
        return {
            **super()._options(),
            "rank": self._calibration.options.rank,
            "calibration": self._calibration.rows,
            "replay_bytes": None if self._renewal is None else self._renewal.max_bytes,
            "observables": [[type(part).__name__, part.config()] for part in self._parts],
            "digest": fingerprint(*self._parts),
        }

    def _state(self) -> dict[str, Any]:
        return {
            **super()._state(),
            "coordinates": frames_state(self._frames),
            "dictionary": dict(self._dictionary.state_dict()),
            "calibration": self._calibration.state_dict(),
            "renewal": None if self._renewal is None else self._renewal.state_dict(),
            "draws": self._generator.get_state(),
        }

    def _load(self, state: dict[str, Any]) -> None:
        super()._load(state)
        self._calibration = copy.copy(self._calibration).load_state_dict(state["calibration"])
        self._frames, self._dictionary = frames_of(state["coordinates"]), Dictionary()
        if self._frames:
            self._dictionary = self._built(self._frames, torch.Generator())
            self._dictionary.load_state_dict(state["dictionary"])
        if self._renewal is not None:
            fresh = Renewal(self._renewal.halflife, self._renewal.max_bytes)
            self._renewal = fresh.load_state_dict(state["renewal"])
        self._generator.set_state(state["draws"])

    def _merge(self, other: Self) -> None:
        if other._frames:
            if self._span is None:
                self._frames, self._dictionary = copy.deepcopy((other._frames, other._dictionary))
            mine, theirs = (
                [fingerprint(each) for each in (*fitter._frames, fitter._dictionary)]
                for fitter in (self, other)
            )
            same_calibration(mine, theirs)
            super()._merge(other)
            if self._renewal is not None and other._renewal is not None:
                self._renewal.merge(other._renewal)
        else:
            self._sizes.merge(other._sizes)
        for trajectory in other._calibration.held:
            self.update(trajectory)
