"""How the EDMD fits of many processes become one: one frame, and the same observables."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from torchkoopman.fitting.closed_form import ClosedForm
from torchkoopman.fitting.streams import NO_DATA
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.observe.processes import digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchkoopman.fitting.calibration import Calibration
    from torchkoopman.fitting.drift import Renewal
    from torchkoopman.koopman.coordinates import Coordinates
    from torchkoopman.koopman.feature_maps import Part
    from torchkoopman.observe.processes import Processes
    from torchkoopman.observe.trajectory import Trajectory


class SyncedEDMD(ClosedForm):
    """What an EDMD fitter knows of its coordinates, and takes over from others."""

    _calibration: Calibration
    _parts: list[Part]
    """Parts of the dictionary, as given."""
    _frames: list[Coordinates]
    """Empty before the calibration."""
    _dictionary: Dictionary
    _renewal: Renewal | None
    """With a halflife only."""
    _generator: torch.Generator

    def _built(self, frames: Sequence[Coordinates], generator: torch.Generator) -> Dictionary:
        """The dictionary for these frames, its random features drawn."""
        dictionary = Dictionary(copy.deepcopy(self._parts)).build(frames[0].size, generator)
        return dictionary.to(frames[0].weight.device, frames[0].weight.dtype)

    def _stream(self, trajectory: Trajectory) -> None:
        raise NotImplementedError

    def _widths(self) -> dict[str, int]:
        layers = self._following().layers
        return {layer: f.features for layer, f in zip(layers, self._frames, strict=True)}

    def holding_back(self) -> Calibration | None:
        """The calibration, until it has ended."""
        return None if self._frames else self._calibration

    def _measured(self) -> dict[str, Any]:
        known: dict[str, Any] = {"widths": None, "dtype": None, "calibration": None}
        if self._frames:
            known["widths"], known["dtype"] = self._widths(), str(self._frames[0].weight.dtype)
            parts = (*self._frames, self._dictionary)
            known["calibration"] = digest(
                *(t for part in parts for t in part.state_dict().values())
            )
        elif self._calibration.held:
            first = self._calibration.held[0]
            known["widths"] = {layer: state.shape[-1] for layer, state in first.states.items()}
            known["dtype"] = str(first.dtype)
        return known

    def _united(
        self, processes: Processes, said: Sequence[Mapping[str, Any]], agreed: Mapping[str, Any]
    ) -> tuple[torch.device, dict[str, int]]:
        calibrated = [rank for rank, each in enumerate(said) if each["calibration"] is not None]
        if len(calibrated) < processes.size:
            self._calibrate_with(processes, calibrated, agreed)
        latent = self._dictionary.latent
        layers = self._following().layers
        return self._frames[0].weight.device, dict.fromkeys(layers, latent)

    def _calibrate_with(
        self, processes: Processes, calibrated: Sequence[int], agreed: Mapping[str, Any]
    ) -> None:
        """Take over the coordinates of others, or choose them with all others."""
        if agreed["widths"] is None:
            raise ValueError(NO_DATA)
        span, held = self._following(), self._calibration.held
        device = held[0].device if held else processes.device
        if calibrated:
            known = (self._frames, self._dictionary)
            frames, dictionary = processes.told(lambda: known, calibrated[0])
        else:
            dtype = getattr(torch, agreed["dtype"].removeprefix("torch."))
            widths = agreed["widths"]
            frames = self._calibration.together(span.layers, widths, dtype, processes)
            dictionary = processes.told(lambda: self._built(frames, self._clone()), 0)
        if self._frames:
            return
        self._calibration = copy.copy(self._calibration)
        self._open(span)
        self._frames, self._dictionary = [frame.to(device) for frame in frames], dictionary
        self._dictionary.to(device)
        for trajectory in self._calibration.released():
            self._stream(trajectory)

    def _clone(self) -> torch.Generator:
        """A generator that draws what this fitter's would, which stays where it stands."""
        clone = torch.Generator(self._generator.device)
        return clone.set_state(self._generator.get_state())
