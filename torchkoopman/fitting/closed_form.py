"""What DMD and EDMD share: moments, a sample of their rows, and the surrogate that these make."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, Self

from torchkoopman.fitting.calibration import require_rows
from torchkoopman.fitting.dynamics import check_dynamics, closed_form
from torchkoopman.fitting.quality import explained, outside
from torchkoopman.fitting.streams import Streams
from torchkoopman.koopman.coordinates import check_frames, resolve_frames
from torchkoopman.koopman.operators import Dense
from torchkoopman.koopman.span import FitRecord, Span
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.observe.capture import plain_modes
from torchkoopman.observe.halflife import check_halflife
from torchkoopman.observe.interrupts import uninterrupted
from torchkoopman.observe.pairs import layer_pairs
from torchkoopman.observe.turns import turn_of
from torchkoopman.spectra.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    import torch

    from torchkoopman.fitting.dynamics import Dynamics
    from torchkoopman.fitting.sampled import Sampled
    from torchkoopman.fitting.streams import Residuals
    from torchkoopman.koopman.coordinates import Coordinates, Frames
    from torchkoopman.koopman.observables import Dictionary
    from torchkoopman.observe.class_moments import LabelledMoments
    from torchkoopman.observe.moments import Moments
    from torchkoopman.observe.pairs import PairKind
    from torchkoopman.observe.trajectory import Trajectory


class Fitter(Protocol):
    """What every fitter does; a probe streams to it."""

    def update(self, trajectory: Trajectory) -> Self:
        """Learn from one trajectory; its labels go into class-wise moments."""
        ...

    @property
    def surrogate(self) -> Surrogate:
        """What was learnt until now, as a value of its own."""
        ...


class ClosedForm(Streams):
    """A fitter whose operator is a regression on moments of latent states."""

    contextual = False
    """Whether it needs the neighbours of a row."""

    def __init__(
        self,
        frames: Frames,
        dynamics: Dynamics,
        ridge: float | None,
        pairs: PairKind,
        halflife: float | None = None,
        class_pairs: PairKind | None = None,
        residuals: Residuals = True,
    ) -> None:
        check_frames(frames)
        check_dynamics(dynamics)
        if ridge is not None and not ridge >= 0:
            raise ValueError(f"ridge={ridge} must not be negative.")
        layer_pairs(("first", "last"), pairs)
        self.frames = frames
        self.dynamics = dynamics
        self.ridge = ridge
        super().__init__(pairs, check_halflife(halflife), class_pairs, residuals)

    def update(self, trajectory: Trajectory) -> Self:
        """Learn from one trajectory, in the precision of its states, also under autocast.

        Rows a million times larger than the others are left out, which ``record.notes`` says.
        """
        modes = plain_modes(trajectory.device.type, grad=False)
        with turn_of(self), uninterrupted(), modes:
            sizes = copy.copy(self._sizes)
            self._learn(sizes.usable(trajectory))
            self._sizes = sizes
        return self

    def _learn(self, trajectory: Trajectory) -> None:
        """Take a trajectory's rows in."""
        raise NotImplementedError

    def reset(self) -> Self:
        """Forget all data and the layers followed; the options stay."""
        with turn_of(self), uninterrupted():
            self._begin()
        return self

    @property
    def surrogate(self) -> Surrogate:
        """The fit over all layers, from the rows streamed until now.

        Raises:
            ValueError: nothing has come, or too few rows for the number of observables.
        """
        with turn_of(self), self._plainly():
            return self._fitted(self._following(), self.dynamics)

    def between(self, start: str, end: str) -> Surrogate:
        """The surrogate of one span, from one layer to a later one, from the rows of the same pass.

        Raises:
            ValueError: layers not followed or in the wrong order, or whose moments were not kept.
        """
        with turn_of(self), self._plainly():
            return self._fitted(self._between(start, end), "span")

    def _plainly(self) -> AbstractContextManager[None]:
        """Out of autocast and inference mode, on the states' device."""
        device = "cpu" if self._latest is None else self._latest.device.type
        return plain_modes(device, grad=False)

    def _fitted(self, span: Span, dynamics: Dynamics) -> Surrogate:
        """The surrogate over a span; warns where more rows were left out than are in it."""
        found = self._fit(span, dynamics)
        if self.halflife is None:  # else what has faded is not in it either
            self._sizes.warn_of_more_than(found.record.rows)
        return found

    def _fit(self, span: Span, dynamics: Dynamics) -> Surrogate:
        """The surrogate over a span, from the moments streamed until now."""
        raise NotImplementedError

    def _between(self, start: str, end: str) -> Span:
        """The span between two of the layers followed, if their moments were kept."""
        span = self._following()
        unknown = [layer for layer in (start, end) if layer not in span.layers]
        if unknown or span.layers.index(start) >= span.layers.index(end):
            raise ValueError(
                f"between({start!r}, {end!r}) takes two of the layers {span.layers}, the earlier "
                "one first."
            )
        if (start, end) not in self._own.pairs:
            raise ValueError(
                f"moments between {start!r} and {end!r} were not kept (pairs={self.pairs!r}); make "
                "the fitter with pairs='all'."
            )
        return span.between(start, end)

    def _solve(
        self,
        method: str,
        span: Span,
        coordinates: Sequence[Coordinates],
        observables: Dictionary,
        latents: LabelledMoments,
        sampled: Sampled,
        dynamics: Dynamics,
        notes: Sequence[str] = (),
    ) -> Surrogate:
        """The surrogate over a span, from moments and a sample of its layers' latent states."""
        layers, total = span.layers, latents.viewed()
        longer = "" if self.halflife is None else ", a longer halflife"
        remedy = f"{longer}, or use fewer observables or a lower rank"
        require_rows(total.count, observables.latent, remedy)
        ends = layers[0], layers[-1]
        pair, ridge = total.between(*ends), self.ridge
        if ridge is None:
            ridge = self._default_ridge(pair, coordinates[0].weight.dtype)
        frames = resolve_frames(self.frames, self._widths())
        fit = closed_form(
            total,
            pair,
            layers,
            dynamics,
            ridge,
            sampled,
            observables,
            skippable=frames == "shared",
        )
        operator = Dense(observables.latent, len(layers) - 1 if fit.kind == "step" else 1, True)
        operator.to(coordinates[0].weight).start_from(fit.matrix)
        seen = round(total.count)
        data = latents.between(*ends)
        notes = (*fit.notes, *self._sizes.notes(), *notes, *self._missing(latents, data))
        record = FitRecord(method, seen, frames=frames, dynamics=fit.kind, notes=notes)
        evidence = None
        if rows := sampled.layers:
            state = slice(1, 1 + observables.features)
            start, end = (rows[layer] for layer in ends)
            known = sampled.samples, sampled.shares, sampled.weights
            evidence = Evidence(start, end, state, True, *known)
        parts = span, coordinates, observables, operator
        surrogate = Surrogate(*parts, record, data, evidence).requires_grad_(False)
        if self._latest is None or self.residuals is not True:
            return surrogate
        left = {layer: each.value for layer, each in outside(surrogate, self._latest).items()}
        record = replace(record, r2=explained(surrogate, self._latest), outside=left)
        return Surrogate(*parts, record, data, evidence)

    def _missing(self, latents: LabelledMoments, data: LabelledMoments) -> list[str]:
        """What a record should say of statistics that were not kept."""
        missing = []
        if self.residuals is not True:
            kept = "moments of the fit's own rows alone were" if self.residuals else "nothing was"
            missing.append(
                f"residuals={self.residuals!r}: {kept} kept to judge the fit by; leave it out for "
                "held-out rows"
            )
        if latents.classes and not data.classes:
            missing.append(
                "no class statistics: by class only the moments of the whole span were kept; "
                f"make the fitter with pairs={self.pairs!r} for those of its other spans"
            )
        return missing

    def _default_ridge(self, pair: Moments, precision: torch.dtype) -> float:
        """The relative ridge of a fit from ``"start"`` to ``"end"`` where none was given."""
        raise NotImplementedError

    def _widths(self) -> dict[str, int]:
        """Layer → number of its features."""
        raise NotImplementedError
