"""What DMD and EDMD share: moments, a sample of their rows, and the surrogate that these make."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, Self

import torch
import torch.distributed as dist

from torchkoopman.fitting.calibration import require_rows
from torchkoopman.fitting.dynamics import check_dynamics, closed_form
from torchkoopman.fitting.outliers import Sizes
from torchkoopman.fitting.quality import unexplained
from torchkoopman.fitting.replay import Reservoir
from torchkoopman.koopman.coordinates import check_frames, resolve_frames
from torchkoopman.koopman.operators import Dense
from torchkoopman.koopman.regression import pool
from torchkoopman.koopman.span import FitRecord, Span
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.observe.capture import plain_modes
from torchkoopman.observe.class_moments import LabelledMoments, check_halflife
from torchkoopman.observe.moments import layer_pairs
from torchkoopman.spectra.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor

    from torchkoopman.fitting.dynamics import Dynamics
    from torchkoopman.koopman.coordinates import Coordinates, Frames
    from torchkoopman.koopman.observables import Dictionary
    from torchkoopman.observe.moments import Moments, PairKind
    from torchkoopman.observe.trajectory import Trajectory

_SAMPLE_BYTES = 8 * 2**20
"""Memory of the sample of rows that judges what was fitted: thousands of rows at usual widths."""

NO_DATA = (
    "the fitter has seen no data yet. Stream to it first: `with tk.attach(model, layers) as probe: "
    "probe.stream_to(fitter); model(x)`, or call fitter.update(trajectory)."
)


class Fitter(Protocol):
    """What every fitter does; a probe streams to it."""

    def update(self, trajectory: Trajectory) -> Self:
        """Learn from one trajectory; its labels go into class-wise moments."""
        ...

    @property
    def surrogate(self) -> Surrogate:
        """What was learnt until now, as a value of its own."""
        ...


class ClosedForm:
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
    ) -> None:
        check_frames(frames)
        check_dynamics(dynamics)
        if ridge is not None and not ridge >= 0:
            raise ValueError(f"ridge={ridge} must not be negative.")
        layer_pairs(("first", "last"), pairs)
        self.frames = frames
        self.dynamics = dynamics
        self.ridge = ridge
        self.halflife = check_halflife(halflife)
        self.pairs: PairKind = pairs
        self._span: Span | None = None
        self._moments = LabelledMoments(())
        self._sample = self._begun()
        self._sizes = Sizes()
        self._latest: Trajectory | None = None
        self._precision = torch.float32

    def update(self, trajectory: Trajectory) -> Self:
        """Learn from one trajectory, in the states' own precision whatever runs around it.

        Rows a million times larger than the others are left out, and said in ``record.notes``.
        """
        with plain_modes(trajectory.device.type, grad=False):
            self._learn(self._sizes.usable(trajectory))
        return self

    def _learn(self, trajectory: Trajectory) -> None:
        """Take a trajectory's rows in."""
        raise NotImplementedError

    def reset(self) -> Self:
        """Forget all data, the layers followed included; what the fitter was made with stays."""
        self._span, self._latest, self._precision = None, None, torch.float32
        self._moments, self._sample, self._sizes = LabelledMoments(()), self._begun(), Sizes()
        return self

    @property
    def surrogate(self) -> Surrogate:
        """The fit over all layers streamed until now."""
        with self._plainly():
            return self._fit(self._following(), self.dynamics)

    def between(self, start: str, end: str) -> Surrogate:
        """The best operator from one layer to a later one, from the same pass.

        Raises:
            ValueError: layers not followed or in the wrong order, or whose moments were not kept.
        """
        with self._plainly():
            return self._fit(self._between(start, end), "span")

    def _plainly(self) -> AbstractContextManager[None]:
        """Out of autocast and inference mode, on the states' device."""
        device = "cpu" if self._latest is None else self._latest.device.type
        return plain_modes(device, grad=False)

    def sync(self) -> Self:
        """Merge what all processes of ``torch.distributed`` have streamed, in place.

        Shards may be uneven, and a process that saw nothing takes part. Afterwards all processes
        have the same surrogate, without a quality of its latest batch.

        Raises:
            ValueError: processes followed different layers, or measured different observables.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return self
        mine = (self._span, self._precision, self._fingerprint())
        others = [mine] * dist.get_world_size()
        dist.all_gather_object(others, mine)
        if len({fingerprint for _, _, fingerprint in others}) > 1:
            raise ValueError(
                "processes measure different observables, so their moments cannot be merged; call "
                "calibrate(trajectory) with the same trajectory in every process before streaming."
            )
        known = [(span, precision) for span, precision, _ in others if span is not None]
        if not known:
            raise ValueError(NO_DATA)
        if len({span.layers for span, _ in known}) > 1:
            raise ValueError(f"processes follow different layers: {[s.layers for s, _ in known]}.")
        if self._span is None:
            self._open(known[0][0])
        self._precision = known[0][1]
        self._moments.sync()
        self._sample.sync()
        self._latest = None
        return self

    def _fit(self, span: Span, dynamics: Dynamics) -> Surrogate:
        """The surrogate over a span, from the moments streamed until now."""
        raise NotImplementedError

    def _open(self, span: Span) -> None:
        """Begin the moments of a span, and the sample of its rows."""
        self._span, self._sample = span, self._begun()
        self._moments = LabelledMoments(layer_pairs(span.layers, self.pairs), self.halflife)

    def _begun(self) -> Reservoir:
        """An empty sample."""
        return Reservoir(_SAMPLE_BYTES, torch.Generator().manual_seed(0), self.halflife)

    def _take(self, values: Mapping[str, Tensor], labels: Tensor | None) -> None:
        """Take rows into the moments, and some of them into the sample."""
        self._moments.update(values, labels)
        self._sample.add(torch.cat(list(values.values()), 1)[:, None])

    def _sampled(self) -> dict[str, Tensor]:
        """Layer → its part of the sampled rows, ``(rows, features)``."""
        if not len(self._sample):
            return {}
        layers, total = self._following().layers, self._moments.total()
        widths = [total.features(layer) for layer in layers]
        paths, _ = self._sample[:]
        return dict(zip(layers, torch.split(paths[:, 0], widths, 1), strict=True))

    def _fingerprint(self) -> str:
        """Equal for fitters whose moments are of the same functions."""
        return ""

    def _following(self) -> Span:
        if self._span is None:
            raise ValueError(NO_DATA)
        return self._span

    def _between(self, start: str, end: str) -> Span:
        """The span between two of the layers followed, if their moments were kept."""
        span = self._following()
        unknown = [layer for layer in (start, end) if layer not in span.layers]
        if unknown or span.layers.index(start) >= span.layers.index(end):
            raise ValueError(
                f"between({start!r}, {end!r}) takes two of the layers {span.layers}, the earlier "
                "one first."
            )
        if (start, end) not in self._moments.pairs:
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
        rows: Mapping[str, Tensor],
        dynamics: Dynamics,
        notes: Sequence[str] = (),
    ) -> Surrogate:
        """The surrogate over a span, from moments and a sample of its layers' latent states."""
        layers, total = span.layers, latents.total()
        longer = "" if self.halflife is None else ", a longer halflife"
        remedy = f"{longer}, or use fewer observables or a lower rank"
        require_rows(total.count, observables.latent, remedy)
        ends = [(layers[0], layers[-1])]
        ridge = self.ridge
        if ridge is None:
            ridge = self._default_ridge(pool(total, ends), coordinates[0].weight.dtype)
        frames = resolve_frames(self.frames, self._widths())
        fit = closed_form(
            total,
            layers,
            dynamics,
            ridge,
            rows,
            observables,
            weights=self._sample.weights,
            skippable=frames == "shared",
        )
        operator = Dense(observables.latent, len(layers) - 1 if fit.kind == "step" else 1, True)
        operator.to(coordinates[0].weight).start_from(fit.matrix)
        seen = round(total.count)
        notes = (*fit.notes, *self._sizes.notes(), *notes)
        record = FitRecord(method, seen, frames=frames, dynamics=fit.kind, notes=notes)
        evidence = None
        if rows:
            state = slice(1, 1 + observables.features)
            start, end = (rows[layer].clone() for layer in ends[0])  # the sample is streamed into
            evidence = Evidence(start, end, state, fitted=True)
        parts = span, coordinates, observables, operator
        data = latents.between(*ends[0]), evidence
        surrogate = Surrogate(*parts, record, *data).requires_grad_(False)
        if self._latest is None:
            return surrogate
        return Surrogate(*parts, replace(record, fvu=unexplained(surrogate, self._latest)), *data)

    def _default_ridge(self, pair: Moments, precision: torch.dtype) -> float:
        """The relative ridge of a fit from ``"start"`` to ``"end"`` where none was given."""
        raise NotImplementedError

    def _widths(self) -> dict[str, int]:
        """Layer → number of its features."""
        raise NotImplementedError
