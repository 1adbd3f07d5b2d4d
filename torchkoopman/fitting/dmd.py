"""Dynamic mode decomposition of a stream: the affine operator on the layers' own states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch

from torchkoopman.fitting.calibration import same_layers
from torchkoopman.fitting.closed_form import ClosedForm, Dynamics
from torchkoopman.koopman.coordinates import CoordinateOptions, Coordinates, layer_coordinates
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.koopman.span import Span

if TYPE_CHECKING:
    from torch import Tensor

    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.moments import PairKind
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
        pairs: which layers' cross-moments to keep: ``"adjacent"``, with those of each layer with
            the first and the last, or ``"all"``, which lets :meth:`between` fit any span.
        halflife: rows after which a row weighs half as much, for a network that still learns; None
            weighs all rows alike. Coordinates come from the moments, so they follow the data.
    """

    def __init__(
        self,
        rank: int | float = -1,
        *,
        dynamics: Dynamics = "step",
        ridge: float = 1e-9,
        shared: bool | None = None,
        delays: int = 0,
        pairs: PairKind = "adjacent",
        halflife: float | None = None,
    ) -> None:
        super().__init__(dynamics, ridge, pairs, halflife)
        if pairs == "ends":
            raise ValueError("pairs='ends' cannot align the layers between; take 'adjacent'.")
        CoordinateOptions(rank)
        self.rank = rank
        self.shared = shared
        self.delays = delays

    def update(self, trajectory: Trajectory) -> Self:
        """Take a trajectory's rows into the moments."""
        stacked = trajectory.delayed(self.delays)
        if self._span is None:
            self._open(Span.of(trajectory, self.delays))
        same_layers(self._following().layers, stacked)
        self._moments.update(stacked.rows(), stacked.row_labels())
        self._latest, self._precision = trajectory, trajectory.dtype
        return self

    def _fit(self, span: Span, dynamics: Dynamics) -> Surrogate:
        total = self._moments.total()
        widths = {total.features(layer) for layer in span.layers}
        shared = len(widths) == 1 if self.shared is None else self.shared
        frames = layer_coordinates(total, span.layers, CoordinateOptions(self.rank, shared=shared))
        dictionary = Dictionary().build(frames[0].size)
        maps = {layer: _augmented(frame) for layer, frame in zip(span.layers, frames, strict=True)}
        latents = self._moments.affine(maps)
        coordinates = [frame.to(self._precision) for frame in frames]
        return self._solve("dmd", span, coordinates, dictionary, latents, dynamics)


def _augmented(frame: Coordinates) -> tuple[Tensor, Tensor]:
    """``x ↦ [1, coordinates]`` as weight and bias."""
    weight = torch.cat([torch.zeros_like(frame.weight[:1]), frame.weight])
    return weight, torch.cat([torch.ones_like(frame.bias[:1]), frame.bias])
