"""Dynamic mode decomposition of a stream: the affine operator on the layers' own states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from torchkoopman.fitting.calibration import same_layers
from torchkoopman.fitting.closed_form import ClosedForm
from torchkoopman.fitting.streams import NO_DATA
from torchkoopman.koopman.coordinates import CoordinateOptions, Coordinates, resolve_frames
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.koopman.principal import layer_coordinates
from torchkoopman.koopman.regression import least_ridge
from torchkoopman.koopman.span import Span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from torchkoopman.fitting.dynamics import Dynamics
    from torchkoopman.koopman.coordinates import Frames
    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.moments import Moments
    from torchkoopman.observe.pairs import PairKind
    from torchkoopman.observe.processes import Processes
    from torchkoopman.observe.trajectory import Trajectory


class DMDFitter(ClosedForm):
    """Dynamic mode decomposition: the best affine map of the state, with observables [1, c].

    Example:
        >>> K = torch.tensor([[0.9, 0.2], [0.0, 0.5]])  # a system that is known
        >>> x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> fitter = tk.DMDFitter().update(tk.Trajectory.of(x, x @ K.T, x @ K.T @ K.T))
        >>> fitter.surrogate.spectrum().per_step.real.round(decimals=3)  # 1 is the constant's
        tensor([1.0000, 0.9000, 0.5000], dtype=torch.float64)

    Args:
        rank: directions kept, as in PyDMD: -1 for all that vary, 0 for the threshold of Gavish and
            Donoho, a fraction for that share of the variance, or a number of directions.
        frames: one frame for all layers, as in the classical DMD, where their widths allow it; or
            ``"aligned"``: principal axes of each layer.
        dynamics: one matrix for every step, one for the span, or the one that predicts held-out
            rows better.
        ridge: relative to the mean variance; None for the least that rounding allows: 1e-9, and
            about 1e-15 for each feature of float64 states.
        delays: stack each layer's state on so many earlier ones, as in the DMD layer-replacement
            paper (arXiv 2409.01308). The surrogate then starts from stacked states and cannot
            replace layers by itself.
        pairs: layers whose cross-moments are kept: ``"adjacent"``, which includes those of each
            layer with the first and the last, or ``"all"``, which lets :meth:`between` fit any
            span.
        halflife: rows after which a row weighs half as much, for a network that still learns; None
            weighs all rows alike. Coordinates come from the moments, so they follow the data.
        residuals: keep what residuals and held-out errors are made of: the covariance of the last
            layer, a third of all products over one step, and a sample of the rows. False is the
            least that a DMD takes, for a third or more of the time: ``dynamics`` must be named,
            the one frame is that of all layers but the last, and what the last layer has outside
            of it is not predicted. The spectrum has no residuals then, and
            ``Spectrum.trusted()`` and ``pseudospectrum("residual")`` are refused.

    Raises:
        ValueError: an argument out of range.
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
        residuals: bool = True,
    ) -> None:
        super().__init__(frames, dynamics, ridge, pairs, halflife, residuals=residuals)
        if not residuals and (dynamics == "auto" or frames == "aligned"):
            raise ValueError(
                f"residuals=False keeps no rows to choose dynamics={dynamics!r} by and no "
                f"covariance of the last layer for frames={frames!r}; give dynamics='span' or "
                "'step' and leave frames at 'auto', or leave out residuals=False."
            )
        if pairs in ("ends", "chain"):
            raise ValueError(
                f"pairs={pairs!r} cannot align the layers in between; take 'adjacent'."
            )
        CoordinateOptions(rank)
        self.rank = rank
        self.delays = delays

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "rank": self.rank, "delays": self.delays}

    def _learn(self, trajectory: Trajectory) -> None:
        if self._span is None:
            self._open(Span.of(trajectory, self.delays))
        stacked = self._following().stacked(trajectory)
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
        moments = self._moments
        return {layer: moments.features(layer) for layer in self._following().layers}


def _augmented(frame: Coordinates) -> tuple[Tensor, Tensor]:
    """``x ↦ [1, coordinates]`` as weight and bias."""
    weight = torch.cat([torch.zeros_like(frame.weight[:1]), frame.weight])
    return weight, torch.cat([torch.ones_like(frame.bias[:1]), frame.bias])
