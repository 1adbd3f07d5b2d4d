"""Extended dynamic mode decomposition of a stream (Williams, Kevrekidis & Rowley 2015)."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Self

import torch

from torchkoopman.fitting.calibration import Calibration, same_layers
from torchkoopman.fitting.closed_form import NO_DATA, ClosedForm, Dynamics
from torchkoopman.koopman.coordinates import CoordinateOptions, Coordinates
from torchkoopman.koopman.observables import Dictionary, Part, RandomFeatures
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.moments import PairKind, layer_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.trajectory import Trajectory


class EDMDFitter(ClosedForm):
    """Extended DMD: ψ(c) = [1, c, parts(c) …], by default with 500 random features.

    The first rows calibrate the layers' coordinates and fix the random features; then everything
    streams into moments of ψ. Fitted across the span it is the instant baseline for the
    autoencoder: milliseconds, one pass, no training.

    Args:
        observables: a part or several (``RandomFeatures``, ``ContextMean``, ``Neighbours``).
        rank: principal directions kept of each layer.
        dynamics, ridge, pairs: as for :class:`DMDFitter`. ``"step"`` follows all layers in time
            at a price in accuracy that the README's table shows.
        calibration: rows held back until coordinates are chosen; None for ten per feature.
        generator: draws the random features; None for one seeded with 0.
    """

    def __init__(
        self,
        observables: Part | Sequence[Part] | None = None,
        *,
        rank: int | float = -1,
        dynamics: Dynamics = "span",
        ridge: float = 1e-7,
        pairs: PairKind | None = None,
        calibration: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(dynamics, ridge, pairs)
        parts = RandomFeatures() if observables is None else observables
        self._parts = [parts] if isinstance(parts, Part) else list(parts)
        self._generator = torch.Generator().manual_seed(0) if generator is None else generator
        self._calibration = Calibration(CoordinateOptions(rank), calibration)
        self._frame: dict[str, Coordinates] = {}
        self._dictionary: Dictionary | None = None

    def update(self, trajectory: Trajectory) -> Self:
        """Take a trajectory's rows into the moments of ψ, or hold them back for calibration."""
        if self._latest is not None:
            same_layers(self._latest.layers, trajectory)
        self._latest = trajectory
        if self._dictionary is None:
            if self._calibration.add(trajectory):
                self.calibrate()
        else:
            self._stream(trajectory)
        return self

    def calibrate(self, trajectory: Trajectory | None = None) -> Self:
        """Fix coordinates and features now, from what came until now or from ``trajectory``.

        In a distributed run call it with the same trajectory in every process: moments of
        different observables cannot be merged.
        """
        if self._dictionary is not None:
            raise RuntimeError(
                "the fitter is calibrated already; a second frame would mix moments."
            )
        if trajectory is not None:
            self._calibration.add(trajectory)
        if not self._calibration.held:
            raise ValueError(NO_DATA)
        layers = self._calibration.held[0].layers
        device = next(iter(self._calibration.held[0].states.values())).device
        frames, held = self._calibration.finish()
        self._frame = {layer: frame.to(device) for layer, frame in zip(layers, frames, strict=True)}
        parts = copy.deepcopy(self._parts)
        self._dictionary = Dictionary(parts).build(frames[0].size, self._generator).to(device)
        self._moments = LabelledMoments(layer_pairs(layers, self.pairs))
        for part in held:
            if part is not trajectory:
                self._stream(part)
        return self

    @property
    def surrogate(self) -> Surrogate:
        """The fit over all layers streamed until now."""
        return self._fit(self._require().layers, self.dynamics)

    def between(self, start: str, end: str) -> Surrogate:
        """The best operator from one layer to another, from the same pass; needs their pair."""
        return self._fit((start, end), "span")

    def _fit(self, layers: Sequence[str], dynamics: Dynamics) -> Surrogate:
        latest = self._require().only(layers)
        if self._dictionary is None:
            self.calibrate()
        assert self._moments is not None
        frames = copy.deepcopy([self._frame[layer] for layer in layers])
        dictionary = copy.deepcopy(self._dictionary)
        assert dictionary is not None
        return self._solve("edmd", latest, frames, dictionary, self._moments, dynamics)

    @torch.no_grad()
    def _stream(self, trajectory: Trajectory) -> None:
        assert self._moments is not None
        assert self._dictionary is not None
        latents = {
            layer: trajectory.flatten(
                self._dictionary.encode(self._frame[layer](state), trajectory.mask)
            )
            for layer, state in trajectory.states.items()
        }
        self._moments.update(latents, trajectory.row_labels())
