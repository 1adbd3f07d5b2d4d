"""Dynamic mode decomposition of a stream: the affine operator on the layers' own states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch

from torchkoopman.fitting.calibration import same_layers
from torchkoopman.fitting.closed_form import ClosedForm, Dynamics
from torchkoopman.koopman.coordinates import CoordinateOptions, Coordinates, layer_coordinates
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.moments import PairKind, layer_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.trajectory import Trajectory


class DMDFitter(ClosedForm):
    """Dynamic mode decomposition (affine): ψ(c) = [1, c].

    Args:
        rank: directions kept, as PyDMD users know it (see ``CoordinateOptions.rank``).
        dynamics: ``"step"`` fits one matrix for the step from each layer to the next, pooled over
            all of them, so that every layer is predicted at its depth-time; ``"span"`` regresses
            the last layer on the first, which replaces the whole span best.
        ridge: relative to the mean variance.
        shared: one frame for all layers, as in the classical DMD; the default wherever the layers'
            widths allow it. Without it each layer has its own principal axes, aligned on the last.
        delays: stack each layer's state on so many earlier ones (delay DMD, S2). The surrogate then
            starts from stacked states and cannot replace layers by itself.
        pairs: which layers' cross-moments to keep; ``"all"`` lets :meth:`between` fit any span.
    """

    def __init__(
        self,
        rank: int | float = -1,
        *,
        dynamics: Dynamics = "step",
        ridge: float = 1e-9,
        shared: bool | None = None,
        delays: int = 0,
        pairs: PairKind | None = None,
    ) -> None:
        super().__init__(dynamics, ridge, pairs)
        CoordinateOptions(rank)
        self.rank = rank
        self.shared = shared
        self.delays = delays

    def update(self, trajectory: Trajectory) -> Self:
        """Take a trajectory's rows into the moments."""
        trajectory = trajectory.delayed(self.delays)
        if self._moments is None:
            self._moments = LabelledMoments(layer_pairs(trajectory.layers, self.pairs))
        else:
            assert self._latest is not None
            same_layers(self._latest.layers, trajectory)
        self._moments.update(trajectory.rows(), trajectory.row_labels())
        self._latest = trajectory
        return self

    @property
    def surrogate(self) -> Surrogate:
        """The fit over all layers streamed until now."""
        return self._fit(self._require().layers, self.dynamics)

    def between(self, start: str, end: str) -> Surrogate:
        """The best linear map from one layer to another, from the same pass; needs their pair."""
        return self._fit((start, end), "span")

    def _fit(self, layers: Sequence[str], dynamics: Dynamics) -> Surrogate:
        latest = self._require().only(layers)
        assert self._moments is not None
        total = self._moments.total()
        widths = {total.features(layer) for layer in layers}
        shared = len(widths) == 1 if self.shared is None else self.shared
        options = CoordinateOptions(self.rank, shared=shared)
        frames = layer_coordinates(total, layers, options)
        dictionary = Dictionary().build(frames[0].size)
        maps = {layer: _augmented(frame) for layer, frame in zip(layers, frames, strict=True)}
        latents = self._moments.affine(maps)
        coordinates = [frame.float() for frame in frames]
        return self._solve("dmd", latest, coordinates, dictionary, latents, dynamics)


def _augmented(frame: Coordinates) -> tuple[Tensor, Tensor]:
    """``x ↦ [1, coordinates]`` as weight and bias."""
    weight = torch.cat([torch.zeros_like(frame.weight[:1]), frame.weight])
    return weight, torch.cat([torch.ones_like(frame.bias[:1]), frame.bias])
