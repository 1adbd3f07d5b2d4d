"""What DMD and EDMD share: which pairs of layers are regressed on each other, and how."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Protocol, Self

from torchkoopman.fitting.calibration import require_rows
from torchkoopman.fitting.quality import unexplained
from torchkoopman.koopman.operators import Dense
from torchkoopman.koopman.regression import koopman_matrix, pool
from torchkoopman.koopman.surrogate import FitRecord, Span, Surrogate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.koopman.coordinates import Coordinates
    from torchkoopman.koopman.observables import Dictionary
    from torchkoopman.observe.class_moments import LabelledMoments
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

    def __init__(self, dynamics: Dynamics, ridge: float, pairs: PairKind | None) -> None:
        if dynamics not in ("span", "step"):
            raise ValueError(f"dynamics={dynamics!r} is unknown; choose 'span' or 'step'.")
        self.dynamics = dynamics
        self.ridge = ridge
        self.pairs: PairKind = pairs or ("ends" if dynamics == "span" else "adjacent")
        self._moments: LabelledMoments | None = None
        self._latest: Trajectory | None = None

    def sync(self) -> Self:
        """Merge what all processes of ``torch.distributed`` have streamed, in place."""
        if self._moments is None:
            raise ValueError(NO_DATA)
        self._moments.sync()
        return self

    def _require(self) -> Trajectory:
        if self._latest is None:
            raise ValueError(NO_DATA)
        return self._latest

    def _solve(
        self,
        method: str,
        latest: Trajectory,
        coordinates: Sequence[Coordinates],
        observables: Dictionary,
        latents: LabelledMoments,
        dynamics: Dynamics,
    ) -> Surrogate:
        """The surrogate over the layers ``latest`` has, from moments of their latent states."""
        layers = latest.layers
        statistics = latents.between(layers[0], layers[-1])
        total = latents.total()
        pairs = [(layers[0], layers[-1])] if dynamics == "span" else list(pairwise(layers))
        require_rows(total.count, observables.latent, ", or use fewer observables or a lower rank")
        operator = Dense(observables.latent, 1 if dynamics == "span" else len(layers) - 1, True)
        operator.start_from(koopman_matrix(pool(total, pairs), self.ridge, constant=True))
        span = Span.even(layers, layouts=dict(latest.layouts), inputs=latest.inputs)
        record = FitRecord(method, total.count)
        surrogate = Surrogate(span, coordinates, observables, operator, record, statistics)
        surrogate.to(next(iter(latest.states.values())).device).requires_grad_(False)
        surrogate.record = replace(record, fvu=unexplained(surrogate, latest))
        return surrogate
