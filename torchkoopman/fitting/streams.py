"""What closed forms keep of a stream: moments of latent states, and a sample of their rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from torchkoopman.fitting.outliers import Sizes
from torchkoopman.fitting.replay import Reservoir
from torchkoopman.fitting.syncing import Syncing, joined, joined_of_all
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.moments import layer_pairs
from torchkoopman.observe.totals import labelled_total_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from torchkoopman.koopman.span import Span
    from torchkoopman.observe.moments import PairKind
    from torchkoopman.observe.processes import Processes
    from torchkoopman.observe.trajectory import Trajectory

_SAMPLE_BYTES = 8 * 2**20
"""Memory of the sample of rows that judges what was fitted: thousands of rows at usual widths."""

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
    sample: Reservoir


class Streams(Syncing):
    """The streamed part of a closed form: what all processes share, and what this one has besides.

    Args:
        pairs: of layers whose cross-moments to keep.
        halflife: in rows, or None.
    """

    def __init__(self, pairs: PairKind, halflife: float | None) -> None:
        self.pairs: PairKind = pairs
        self.halflife = halflife
        self._begin()

    def _begin(self) -> None:
        """Have seen nothing."""
        self._span: Span | None = None
        self._shared: Shared | None = None
        self._own = LabelledMoments(())
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
        self._own = LabelledMoments(layer_pairs(span.layers, self.pairs), self.halflife)

    def _begun(self) -> Reservoir:
        """An empty sample."""
        return Reservoir(_SAMPLE_BYTES, torch.Generator().manual_seed(0), self.halflife)

    def _take(self, values: Mapping[str, Tensor], labels: Tensor | None) -> None:
        """Take rows into the moments, and some of them into the sample."""
        self._own.update(values, labels)
        self._drawn.add(torch.cat(list(values.values()), 1)[:, None])

    @property
    def _moments(self) -> LabelledMoments:
        """Of all rows known here: those of all processes at the latest sync, and its own since."""
        if self._shared is None:
            return self._own
        return LabelledMoments(self._own.pairs).merge(self._shared.moments).merge(self._own)

    @property
    def _sample(self) -> Reservoir:
        """Of the same rows."""
        if self._shared is None:
            return self._drawn
        return joined([self._shared.sample, self._drawn], self._drawn.seen)

    def _sampled(self) -> dict[str, Tensor]:
        """Layer → its part of the sampled rows, ``(rows, features)``."""
        sample = self._sample
        if not len(sample):
            return {}
        layers, total = self._following().layers, self._moments.total()
        widths = [total.features(layer) for layer in layers]
        paths, _ = sample[:]
        return dict(zip(layers, torch.split(paths[:, 0], widths, 1), strict=True))

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
            "layers": None if span is None else (*span.before, *span.layers),
            "readings": None if span is None else span.readings(),
            **self._measured(),
        }

    def _options(self) -> dict[str, Any]:
        """What must be equal in processes that merge what they streamed."""
        names = ("frames", "dynamics", "ridge", "pairs")
        return {name: getattr(self, name) for name in names}

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
        shared, own, seed = self._shared, self._own, self._syncs[0]
        found = processes.gather((tuple(own.by_class), self._sizes.found()))
        classes = {label for labels, _ in found for label in labels}
        moments = labelled_total_of(own, classes, widths, processes, device)
        before = None if shared is None else shared.sample
        sample = joined_of_all(before, self._drawn, processes, device, seed)
        if shared is not None:
            moments = LabelledMoments(own.pairs).merge(shared.moments).merge(moments)
        self._open(span)
        self._shared = Shared(moments, sample)
        self._sizes = self._sizes.with_those([sizes for _, sizes in found])

    def _united(
        self, processes: Processes, said: Sequence[Mapping[str, Any]], agreed: Mapping[str, Any]
    ) -> tuple[torch.device, dict[str, int]]:
        """Take over what others know; returns the device and widths of this fitter's variables."""
        raise NotImplementedError
