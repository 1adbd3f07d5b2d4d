"""Extended dynamic mode decomposition of a stream (Williams, Kevrekidis & Rowley 2015)."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Self

import torch

from torchkoopman.fitting.calibration import MASSIVE, Calibration, same_layers, same_widths
from torchkoopman.fitting.drift import Renewal
from torchkoopman.fitting.edmd_state import EDMDParts
from torchkoopman.fitting.streams import NO_DATA
from torchkoopman.koopman.coordinates import CoordinateOptions, Coordinates
from torchkoopman.koopman.feature_maps import Part, RandomFeatures, as_parts
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.koopman.regression import best_ridge
from torchkoopman.koopman.span import Span
from torchkoopman.observe.interrupts import uninterrupted
from torchkoopman.observe.turns import turn_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from torchkoopman.fitting.dynamics import Dynamics
    from torchkoopman.fitting.sampled import Sampled
    from torchkoopman.koopman.coordinates import Frames
    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.moments import Moments
    from torchkoopman.observe.pairs import PairKind
    from torchkoopman.observe.trajectory import Trajectory


class EDMDFitter(EDMDParts):
    """Extended DMD: a linear map of observables [1, c, parts(c) …], 500 random features by default.

    The first rows calibrate the layers' coordinates and fix the random features; all rows stream
    into moments of the observables. One pass, no training.

    Example:
        >>> x = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.double)
        >>> fitter = tk.EDMDFitter(tk.Monomials(3)).update(tk.Trajectory.of(x, 0.5 * x))
        >>> fitter.surrogate.spectrum().moduli.round(decimals=3)  # of x ↦ x / 2: 1, ½, ½², ½³
        tensor([1.0000, 0.5000, 0.2500, 0.1250], dtype=torch.float64)

    Args:
        observables: a part or several (:class:`RandomFeatures`, :class:`Monomials`,
            :class:`ContextMean`, :class:`Neighbours`).
        rank: principal directions kept of each layer, as for :class:`DMDFitter`.
        frames: one frame for all layers where their widths allow it, or ``"aligned"``: one for each
            layer, rotated onto the last.
        dynamics: one matrix for every step, one for the span, or the one that predicts held-out
            rows better. ``"span"`` keeps fewer moments and is several times cheaper over many
            layers.
        ridge: relative to the mean variance; None for the one of least generalised
            cross-validation error.
        pairs: layers whose cross-moments are kept; by default those that ``dynamics`` needs, and
            ``"all"`` lets :meth:`between` fit any span. Named, they are kept by class too; by
            default a class keeps those of the whole span, which unlearning it takes.
        calibration: rows held back until coordinates are chosen; None for ten per feature.
        halflife: rows after which a row weighs half as much, for a network that still learns; None
            weighs all rows alike. Where the data drift out of their frame, frame and observables
            are renewed from the latest rows, of which those of three halflives are kept; the
            record's notes say how often.
        replay_bytes: memory of the rows kept for that.
        generator: draws the random features; None for one seeded with 0.

    Raises:
        ValueError: an argument out of range.
        TypeError: observables that are not parts.
    """

    def __init__(
        self,
        observables: Part | Sequence[Part] | None = None,
        *,
        rank: int | float = -1,
        frames: Frames = "auto",
        dynamics: Dynamics = "auto",
        ridge: float | None = None,
        pairs: PairKind | None = None,
        calibration: int | None = None,
        halflife: float | None = None,
        replay_bytes: int = 128 * 2**20,
        generator: torch.Generator | None = None,
    ) -> None:
        kept: PairKind = "ends" if dynamics == "span" else "chain"
        super().__init__(frames, dynamics, ridge, pairs or kept, halflife, pairs or "ends")
        self._renewal = None if halflife is None else Renewal(halflife, replay_bytes)
        self._parts = as_parts(RandomFeatures() if observables is None else observables)
        self._seeded = generator is None
        self._generator = torch.Generator().manual_seed(0) if generator is None else generator
        options = CoordinateOptions(rank, frames=frames, massive=MASSIVE)
        self._calibration = Calibration(options, calibration)
        self._frames: list[Coordinates] = []
        self._dictionary = Dictionary()

    @property
    def contextual(self) -> bool:  # type: ignore[override]
        """Whether an observable looks along the positions."""
        return any(part.contextual for part in self._parts)

    def _learn(self, trajectory: Trajectory) -> None:
        if self._span is None:
            self._open(Span.of(trajectory))
        same_layers(self._following().layers, trajectory)
        same_widths(self._frames, trajectory)
        if self._frames:
            self._stream(trajectory)
        elif self._calibration.add(trajectory):
            self.calibrate()
        self._latest = trajectory
        renewal = self._renewal
        if renewal is not None and renewal.due(trajectory, self._frames, self._dictionary.latent):
            self._renew(renewal)

    def reset(self) -> Self:
        """Forget all data, layers, coordinates and random features; the options stay.

        A generator that was given goes on where it stands; without one, all is as freshly made.
        """
        with turn_of(self), uninterrupted():
            super().reset()
            self._calibration = Calibration(self._calibration.options, self._calibration.rows)
            self._frames, self._dictionary = [], Dictionary()
            if self._renewal is not None:
                self._renewal = Renewal(self._renewal.halflife, self._renewal.max_bytes)
            if self._seeded:
                self._generator.manual_seed(0)
        return self

    def calibrate(self, sample: Trajectory | None = None) -> Self:
        """Fix coordinates and random features now, from ``sample`` or from the rows held back.

        The sample itself does not enter the fit. With many processes call this in each with the
        same sample, or :meth:`sync` before the first of them has rows enough to calibrate itself:
        moments of different observables cannot be merged.

        Raises:
            RuntimeError: the fitter is calibrated already.
            ValueError: nothing to calibrate with, or too few rows.
        """
        with turn_of(self), uninterrupted():
            return self._calibrated(sample)

    def _calibrated(self, sample: Trajectory | None) -> Self:
        if self._frames:
            raise RuntimeError(
                "the fitter is calibrated already; a second frame would mix moments."
            )
        if sample is not None and self._span is None:
            self._open(Span.of(sample))
        layers = self._following().layers
        if sample is not None:
            same_layers(layers, sample)
            if self._renewal is not None:
                self._renewal.pinned = True
        frames, held = self._calibration.finish(sample)
        self._frames, self._dictionary = frames, self._built(frames, self._generator)
        with self._own.all_or_nothing():
            for trajectory in held:
                self._stream(trajectory)
        return self

    def _renew(self, renewal: Renewal) -> None:
        """Calibrate again, and stream the latest rows into moments of the new observables."""
        before = self._frames, self._dictionary, self._own, self._drawn
        self._frames, self._calibration.held = [], renewal.window.held
        self._open(self._following())
        try:
            self.calibrate()
        except ValueError as error:  # a layer that is constant now
            self._frames, self._dictionary, self._own, self._drawn = before
            self._calibration.held, renewal.hindrance = [], str(error)
        else:
            renewal.renewed()

    def _fit(self, span: Span, dynamics: Dynamics) -> Surrogate:
        if not self._frames:
            self.calibrate()
        moments = self._moments
        if moments.count == 0:
            raise ValueError(NO_DATA)
        layers = self._following().layers
        frames = [self._frames[layers.index(layer)] for layer in span.layers]
        frames, dictionary = copy.deepcopy((frames, self._dictionary))
        notes = () if self._renewal is None else self._renewal.notes()
        sampled = self._encoded_sample()
        return self._solve("edmd", span, frames, dictionary, moments, sampled, dynamics, notes)

    def _encoded_sample(self) -> Sampled:
        """The sampled rows' latent states."""
        dictionary, first = self._dictionary, self._frames[0]
        width = dictionary.latent if self.contextual else first.size

        def encode(_: str, rows: Tensor) -> Tensor:
            return rows if self.contextual else dictionary.encode(rows[:, None])[:, 0]

        size = dictionary.latent * first.weight.itemsize
        return self._sampled(dict.fromkeys(self._following().layers, width), encode, size)

    def _default_ridge(self, pair: Moments, precision: torch.dtype) -> float:
        return best_ridge(pair, precision)

    @torch.no_grad()
    def _stream(self, trajectory: Trajectory) -> None:
        trajectory = trajectory if self.contextual else trajectory.sampled()
        states = zip(self._frames, trajectory.states.items(), strict=True)
        coordinates = {layer: frame(state.to(frame.weight)) for frame, (layer, state) in states}
        latents = {
            layer: trajectory.flatten(self._dictionary.encode(each, trajectory.mask))
            for layer, each in coordinates.items()
        }
        # A row's observables are functions of it, unless they look at its neighbours.
        flat = {layer: trajectory.flatten(each) for layer, each in coordinates.items()}
        self._take(latents, latents if self.contextual else flat, trajectory)
