"""Dynamic mode decomposition of a stream: the affine operator on the layers' own states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from torchkoopman.fitting.calibration import same_layers
from torchkoopman.fitting.closed_form import ClosedForm
from torchkoopman.fitting.streams import NO_DATA
from torchkoopman.koopman.coordinates import (
    CoordinateOptions,
    Coordinates,
    layer_coordinates,
    resolve_frames,
)
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.koopman.regression import least_ridge
from torchkoopman.koopman.span import Span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from torchkoopman.fitting.dynamics import Dynamics
    from torchkoopman.koopman.coordinates import Frames
    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.moments import Moments, PairKind
    from torchkoopman.observe.processes import Processes
    from torchkoopman.observe.trajectory import Trajectory


class DMDFitter(ClosedForm):
    """Dynamic mode decomposition (affine): ψ(c) = [1, c].

    Args:
        rank: directions kept, as PyDMD users know it (see ``CoordinateOptions.rank``).
        frames: one frame for all layers, as in the classical DMD, wherever their widths allow it;
            or ``"aligned"``: each layer's own principal axes. See ``Frames``.
        dynamics: one matrix for every step, one for the span, or what held-out rows prefer; see
            ``Dynamics``.
        ridge: relative to the mean variance; None for what rounding asks: 1e-9, and
            about 1e-15 for each feature of float64 states.
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
        frames: Frames = "auto",
        dynamics: Dynamics = "auto",
        ridge: float | None = None,
        delays: int = 0,
        pairs: PairKind = "adjacent",
        halflife: float | None = None,
    ) -> None:
        super().__init__(frames, dynamics, ridge, pairs, halflife)
        if pairs in ("ends", "chain"):
            raise ValueError(f"pairs={pairs!r} cannot align the layers between; take 'adjacent'.")
        CoordinateOptions(rank)
        self.rank = rank
        self.delays = delays

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "rank": self.rank, "delays": self.delays}

    def _learn(self, trajectory: Trajectory) -> None:
        stacked = trajectory.delayed(self.delays)
        if self._span is None:
            self._open(Span.of(trajectory, self.delays))
        same_layers(self._following().layers, stacked)
        rows = stacked.rows()
        self._take(rows, rows, stacked)
        self._latest, self._precision = trajectory, trajectory.dtype

    def _fit(self, span: Span, dynamics: Dynamics) -> Surrogate:
        options = CoordinateOptions(self.rank, frames=resolve_frames(self.frames, self._widths()))
        frames = layer_coordinates(self._moments.total(), span.layers, options)
        dictionary = Dictionary().build(frames[0].size)
        maps = {layer: _augmented(frame) for layer, frame in zip(span.layers, frames, strict=True)}

        def encode(layer: str, rows: Tensor) -> Tensor:
            """Onto the coordinates, in the rows' precision; outside the span nothing."""
            if layer not in maps:
                return rows.new_empty(len(rows), 0)
            return torch.nn.functional.linear(rows, *(map_.to(rows) for map_ in maps[layer]))

        size = dictionary.latent * self._precision.itemsize
        sampled = self._sampled(self._widths(), encode, size)
        coordinates = [frame.to(self._precision) for frame in frames]
        moments = self._moments.affine(maps)
        return self._solve("dmd", span, coordinates, dictionary, moments, sampled, dynamics)

    def _default_ridge(self, pair: Moments, precision: torch.dtype) -> float:
        return least_ridge(pair.features("start"), precision)

    def _measured(self) -> dict[str, Any]:
        known = self._moments.count > 0
        return {
            "widths": self._widths() if known else None,
            "dtype": str(self._precision) if known else None,
            "calibration": None,
        }

    def _united(
        self, processes: Processes, said: Sequence[Mapping[str, Any]], agreed: Mapping[str, Any]
    ) -> tuple[torch.device, dict[str, int]]:
        if agreed["widths"] is None:
            raise ValueError(NO_DATA)
        layers, total = self._following().layers, self._moments.total()
        self._precision = getattr(torch, agreed["dtype"].removeprefix("torch."))
        device = total.mean(layers[0]).device if total.count else processes.device
        return device, agreed["widths"]

    def _widths(self) -> dict[str, int]:
        total = self._moments.total()
        return {layer: total.features(layer) for layer in self._following().layers}


def _augmented(frame: Coordinates) -> tuple[Tensor, Tensor]:
    """``x ↦ [1, coordinates]`` as weight and bias."""
    weight = torch.cat([torch.zeros_like(frame.weight[:1]), frame.weight])
    return weight, torch.cat([torch.ones_like(frame.bias[:1]), frame.bias])
