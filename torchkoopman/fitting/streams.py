"""What closed forms keep of a stream: moments of latent states, and a sample of their rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import torch

from torchkoopman.fitting.gathered import Gathered
from torchkoopman.fitting.identity import row_ids
from torchkoopman.fitting.outliers import Sizes
from torchkoopman.fitting.resuming import Resumable
from torchkoopman.fitting.sampled import Sampled, sampled_latents
from torchkoopman.fitting.snapshots import trajectory_of, trajectory_state
from torchkoopman.fitting.syncing import Syncing
from torchkoopman.fitting.whole_samples import WholeSamples
from torchkoopman.koopman.span import Span
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.pairs import layer_pairs, regressions
from torchkoopman.observe.totals import labelled_total_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from torchkoopman.observe.pairs import PairKind
    from torchkoopman.observe.processes import Processes
    from torchkoopman.observe.trajectory import Trajectory

_SAMPLE_BYTES = 8 * 2**20
"""Memory of the sample of rows that judges what was fitted, until it is asked for: states, from
which latent ones are computed."""

Residuals = bool | Literal["moments"]

NO_DATA = (
    "the fitter has seen no data yet. Stream to it first: `with tk.attach(model, layers) as probe: "
    "probe.stream_to(fitter); model(x)`, or call fitter.update(trajectory)."
)

_NO_ORDER = (
    "a halflife weighs a row by how many rows came after it, and rows of several processes have no "
    "order. Leave halflife= out, or let one process stream."
)


@dataclass(frozen=True)
class Shared:
    """What all processes had streamed at the latest sync."""

    moments: LabelledMoments
    sample: WholeSamples


class Streams(Syncing, Resumable):
    """The streamed part of a closed form: what all processes share, and what this one has besides.

    Args:
        pairs: of layers whose cross-moments to keep.
        halflife: in rows, or None.
        class_pairs: of layers whose cross-moments to keep by class; None for the same.
        residuals: what to keep of what residuals are made of: True for the covariance of the last
            layer and a sample of the rows, ``"moments"`` for the former, False for neither.
    """

    def __init__(
        self,
        pairs: PairKind,
        halflife: float | None,
        class_pairs: PairKind | None = None,
        residuals: Residuals = True,
    ) -> None:
        self.pairs: PairKind = pairs
        self.halflife = halflife
        self.residuals = residuals
        self._class_pairs: PairKind = class_pairs or pairs
        self._begin()

    def _begin(self) -> None:
        """Have seen nothing."""
        self._span: Span | None = None
        self._shared: Shared | None = None
        self._own = Gathered(LabelledMoments(()))
        """Moments of this process's rows since the latest sync."""
        self._drawn = self._begun()
        """A sample of the same rows."""
        self._sizes = Sizes()
        self._latest: Trajectory | None = None
        self._precision = torch.float32
        self._syncs = 0, ""

    def _open(self, span: Span) -> None:
        """Begin the moments of a span, and the sample of its rows."""
        self._span, self._drawn = span, self._begun()
        pairs, by_class = (
            layer_pairs(span.layers, kind) for kind in (self.pairs, self._class_pairs)
        )
        if not self.residuals:
            pairs.remove((span.layers[-1], span.layers[-1]))
        self._own = Gathered(LabelledMoments(pairs, self.halflife, regressions(by_class)))

    def _begun(self) -> WholeSamples:
        """An empty sample."""
        return WholeSamples(_SAMPLE_BYTES, self.halflife)

    def _take(
        self, values: Mapping[str, Tensor], sampled: Mapping[str, Tensor], trajectory: Trajectory
    ) -> None:
        """Take the rows of a trajectory into the moments, and some of them into the sample.

        Args:
            values: variable of the moments → its rows.
            sampled: layer → what the sample keeps of the same rows.
            trajectory: theirs.
        """
        self._own.update(values, trajectory.row_labels())
        if self.residuals is True:
            self._drawn.add(list(sampled.values()), row_ids(trajectory))

    @property
    def _moments(self) -> LabelledMoments:
        """Moments of all rows known here: of all processes until the latest sync, its own since."""
        if self._shared is None:
            return self._own.moments
        if not self._own.count:
            return self._shared.moments
        return self._own.moments.fresh().merge(self._shared.moments).merge(self._own.moments)

    @property
    def _sample(self) -> WholeSamples:
        """The sample of the same rows."""
        if self._shared is None:
            return self._drawn
        if not self._own.count:
            return self._shared.sample
        return self._begun().merge(self._shared.sample).merge(self._drawn)

    def _sampled(
        self, widths: Mapping[str, int], encode: Callable[[str, Tensor], Tensor], size: int
    ) -> Sampled:
        """The latent states of the sampled rows; see ``sampled_latents``."""
        return sampled_latents(self._sample, widths, encode, size)

    def _following(self) -> Span:
        if self._span is None:
            raise ValueError(NO_DATA)
        return self._span

    def _said(self) -> dict[str, Any]:
        span = self._span
        return {
            "refusal": "" if self.halflife is None else _NO_ORDER,
            "new rows": self._own.count,
            "span": span,
            "fitter": type(self).__name__,
            "syncs": self._syncs,
            "options": self._options(),
            "layers": None if span is None else span.watched,
            "readings": None if span is None else span.readings(),
            **self._measured(),
        }

    def _options(self) -> dict[str, Any]:
        names = ("frames", "dynamics", "ridge", "pairs", "halflife")
        options = {name: getattr(self, name) for name in names}
        return options if self.residuals is True else {**options, "residuals": self.residuals}

    def _layers(self) -> tuple[str, ...]:
        return () if self._span is None else self._span.watched

    def _features(self) -> dict[str, int] | None:
        widths: dict[str, int] | None = self._measured()["widths"]
        return widths

    def _state(self) -> dict[str, Any]:
        shared = self._shared
        return {
            "span": None if self._span is None else self._span.config(),
            "moments": self._own.state(),
            "sample": self._drawn.state_dict(),
            "shared moments": None if shared is None else shared.moments.tensors(),
            "shared sample": None if shared is None else shared.sample.state_dict(),
            "syncs": self._syncs,
            "sizes": self._sizes.state_dict(),
            "latest": trajectory_state(self._latest),
            "precision": str(self._precision).removeprefix("torch."),
        }

    def _load(self, state: dict[str, Any]) -> None:
        self._begin()
        if state["span"] is not None:
            self._open(Span.from_config(state["span"]))
        self._own.load(state["moments"])
        self._drawn.load_state_dict(state["sample"])
        if state["shared moments"] is not None:
            moments = self._own.moments.fresh().load(state["shared moments"])
            self._shared = Shared(moments, self._begun().load_state_dict(state["shared sample"]))
        self._syncs = tuple(state["syncs"])
        self._sizes.load_state_dict(state["sizes"])
        self._latest = trajectory_of(state["latest"])
        self._precision = getattr(torch, state["precision"])

    def _merge(self, other: Self) -> None:
        mine, theirs = self._shared, other._shared
        if mine is not None and theirs is not None and mine.moments.same_as(theirs.moments):
            raise ValueError(
                "both fitters hold the rows of the same sync, which would count twice; after a "
                "sync every process has all rows, so take one of them."
            )
        if self._span is None and other._span is not None:
            self._open(other._span)
            self._latest, self._precision = other._latest, other._precision
        if other._moments.count:
            self._own.merge(other._moments)
            self._drawn.merge(other._sample)
        self._sizes.merge(other._sizes)

    def _measured(self) -> dict[str, Any]:
        """``"widths"`` and ``"dtype"`` of the layers, and the ``"calibration"``, if known."""
        raise NotImplementedError

    def _unite(
        self, processes: Processes, said: Sequence[Mapping[str, Any]], agreed: Mapping[str, Any]
    ) -> None:
        span = next((each["span"] for each in said if each["span"] is not None), None)
        if span is None:
            raise ValueError(NO_DATA)
        if self._span is None:
            self._open(span)
        self._span, self._latest = span, None
        device, widths = self._united(processes, said, agreed)
        shared, own = self._shared, self._own.moments
        found = processes.gather((tuple(own.by_class), self._sizes.found()))
        classes = {label for labels, _ in found for label in labels}
        moments = labelled_total_of(own, classes, widths, processes, device)
        sample = self._drawn.of_all(processes, device)
        if shared is not None:
            sample = self._begun().merge(shared.sample).merge(sample)
            moments = own.fresh().merge(shared.moments).merge(moments)
        self._open(span)
        self._shared = Shared(moments, sample)
        self._sizes = self._sizes.with_those([sizes for _, sizes in found])

    def _united(
        self, processes: Processes, said: Sequence[Mapping[str, Any]], agreed: Mapping[str, Any]
    ) -> tuple[torch.device, dict[str, int]]:
        """Take over what others know; returns the device and widths of this fitter's variables."""
        raise NotImplementedError
