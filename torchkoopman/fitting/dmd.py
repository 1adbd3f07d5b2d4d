"""Dynamic mode decomposition of a stream: the affine operator on the layers' own states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad

from torchkoopman.fitting.calibration import same_layers
from torchkoopman.fitting.dmd_wide import WideStreams
from torchkoopman.koopman.coordinates import CoordinateOptions, Coordinates, resolve_frames
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.koopman.principal import layer_coordinates
from torchkoopman.koopman.regression import least_ridge
from torchkoopman.koopman.span import Span

if TYPE_CHECKING:
    from torch import Tensor

    from torchkoopman.fitting.dynamics import Dynamics
    from torchkoopman.fitting.streams import Residuals
    from torchkoopman.koopman.coordinates import Frames
    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.moments import Moments
    from torchkoopman.observe.pairs import PairKind
    from torchkoopman.observe.trajectory import Trajectory


class DMDFitter(WideStreams):
    """Dynamic mode decomposition: the best affine map of the state, with observables [1, c].

    Example:
        >>> K = torch.tensor([[0.9, 0.2], [0.0, 0.5]])  # a system that is known
        >>> x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> fitter = tk.DMDFitter().update(tk.Trajectory.of(x, x @ K.T, x @ K.T @ K.T))
        >>> fitter.surrogate.spectrum().per_step.real.round(decimals=3)  # 1 is the constant's
        tensor([1.0000, 0.9000, 0.5000], dtype=torch.float64)

    Args:
        rank: directions kept, as in PyDMD: -1 for all that vary, 0 for the threshold of Gavish and
            Donoho, a fraction for that share of the variance, or a number of directions, which also
            bounds what is kept of layers wider than 1 024 features.
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
            layer, a third of all products over one step, and a sample of the rows. ``"moments"``
            keeps the former alone: residuals are then estimated from the fit's own rows. False is
            the least that a DMD takes: the one frame is that of all layers but the last, what the
            last layer has outside of it is not predicted, the spectrum has no residuals, and
            ``Spectrum.trusted()`` and ``pseudospectrum("residual")`` are refused. Both ask for
            ``dynamics`` by name, since no rows are kept to choose them by, and give no R².

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
        residuals: Residuals = True,
    ) -> None:
        super().__init__(frames, dynamics, ridge, pairs, halflife, residuals=residuals)
        if not isinstance(residuals, bool) and residuals != "moments":
            raise ValueError(
                f"residuals={residuals!r} is unknown; choose True, 'moments' or False."
            )
        if residuals is not True and dynamics == "auto":
            raise ValueError(
                f"residuals={residuals!r} keeps no rows to choose dynamics='auto' by; give "
                "dynamics='span' or 'step', or leave out residuals=."
            )
        if not residuals and frames == "aligned":
            raise ValueError(
                "residuals=False keeps no covariance of the last layer for frames='aligned'; leave "
                "frames at 'auto', or give residuals='moments'."
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
        self._hold(stacked)
        self._latest, self._precision = trajectory, trajectory.dtype

    def _fit(self, span: Span, dynamics: Dynamics) -> Surrogate:
        return self._settled(span)._fit_of_moments(span, dynamics)

    def _fit_of_moments(self, span: Span, dynamics: Dynamics) -> Surrogate:
        kind, layers = resolve_frames(self.frames, self._widths()), self._following().layers
        onto = [self._frames[layers.index(layer)] for layer in span.layers if self._frames]
        massive = float("inf") if onto else CoordinateOptions().massive  # once is enough
        options = CoordinateOptions(self.rank, frames=kind, massive=massive)
        frames = layer_coordinates(self._moments.viewed(), span.layers, options)
        dictionary = Dictionary().build(frames[0].size)
        maps = {layer: _augmented(frame) for layer, frame in zip(span.layers, frames, strict=True)}

        def encode(layer: str, rows: Tensor) -> Tensor:
            """Onto the coordinates, in the rows' precision; outside the span nothing."""
            if layer not in maps:
                return rows.new_empty(len(rows), 0)
            return torch.nn.functional.linear(rows, *(map_.to(rows) for map_ in maps[layer]))

        size = dictionary.latent * self._precision.itemsize
        sizes = [frame.size for frame in self._frames] or self._widths().values()
        sampled = self._sampled(dict(zip(layers, sizes, strict=True)), encode, size)
        if onto:
            frames = [outer.then(frame) for outer, frame in zip(onto, frames, strict=True)]
        coordinates = [frame.to(self._precision) for frame in frames]
        parts = span, coordinates, dictionary, self._moments.affine(maps), sampled
        return self._solve("dmd", *parts, dynamics, self._notes())

    def _default_ridge(self, pair: Moments, precision: torch.dtype) -> float:
        return least_ridge(pair.features("start"), precision)


def _augmented(frame: Coordinates) -> tuple[Tensor, Tensor]:
    """``x ↦ [1, coordinates]`` as weight and bias."""
    return pad(frame.weight, (0, 0, 1, 0)), pad(frame.bias, (1, 0), value=1.0)
