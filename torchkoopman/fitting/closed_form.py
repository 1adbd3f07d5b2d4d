"""What DMD and EDMD share: which pairs of layers are regressed on each other, and how."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Protocol, Self

import torch
import torch.distributed as dist

from torchkoopman.fitting.calibration import require_rows
from torchkoopman.fitting.quality import unexplained
from torchkoopman.koopman.operators import Dense
from torchkoopman.koopman.regression import koopman_matrix, pool
from torchkoopman.koopman.span import FitRecord, Span
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.observe.class_moments import LabelledMoments, check_halflife
from torchkoopman.observe.moments import layer_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.koopman.coordinates import Coordinates
    from torchkoopman.koopman.observables import Dictionary
    from torchkoopman.observe.moments import PairKind
    from torchkoopman.observe.trajectory import Trajectory

Dynamics = Literal["span", "step"]


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

    def __init__(
        self, dynamics: Dynamics, ridge: float, pairs: PairKind, halflife: float | None = None
    ) -> None:
        if dynamics not in ("span", "step"):
            raise ValueError(f"dynamics={dynamics!r} is unknown; choose 'span' or 'step'.")
        layer_pairs(("first", "last"), pairs)
        self.dynamics = dynamics
        self.ridge = ridge
        self.halflife = check_halflife(halflife)
        self.pairs: PairKind = pairs
        self._span: Span | None = None
        self._moments = LabelledMoments(())
        self._latest: Trajectory | None = None
        self._precision = torch.float32

    def reset(self) -> Self:
        """Forget all data, the layers followed included; what the fitter was made with stays."""
        self._span, self._latest = None, None
        self._moments = LabelledMoments(())
        return self

    @property
    def surrogate(self) -> Surrogate:
        """The fit over all layers streamed until now."""
        return self._fit(self._following(), self.dynamics)

    def between(self, start: str, end: str) -> Surrogate:
        """The best operator from one layer to a later one, from the same pass.

        Raises:
            ValueError: layers not followed or in the wrong order, or whose moments were not kept.
        """
        return self._fit(self._between(start, end), "span")

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
        self._latest = None
        return self

    def _fit(self, span: Span, dynamics: Dynamics) -> Surrogate:
        """The surrogate over a span, from the moments streamed until now."""
        raise NotImplementedError

    def _open(self, span: Span) -> None:
        """Begin the moments of a span."""
        self._span = span
        self._moments = LabelledMoments(layer_pairs(span.layers, self.pairs), self.halflife)

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
        dynamics: Dynamics,
    ) -> Surrogate:
        """The surrogate over a span, from moments of its layers' latent states."""
        layers = span.layers
        statistics = latents.between(layers[0], layers[-1])
        total = latents.total()
        pairs = [(layers[0], layers[-1])] if dynamics == "span" else list(pairwise(layers))
        longer = "" if self.halflife is None else ", a longer halflife"
        remedy = f"{longer}, or use fewer observables or a lower rank"
        require_rows(total.count, observables.latent, remedy)
        operator = Dense(observables.latent, 1 if dynamics == "span" else len(layers) - 1, True)
        operator.to(coordinates[0].weight)
        operator.start_from(koopman_matrix(pool(total, pairs), self.ridge, constant=True))
        record = FitRecord(method, round(total.count))
        surrogate = Surrogate(span, coordinates, observables, operator, record, statistics)
        surrogate.requires_grad_(False)
        if self._latest is not None:
            surrogate.record = replace(record, fvu=unexplained(surrogate, self._latest))
        return surrogate
