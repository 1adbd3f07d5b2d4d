"""Rows of wide layers: all of them while they are few, then their leading directions alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import torch

from torchkoopman.fitting.calibration import WIDE, Calibration, require_rows
from torchkoopman.fitting.closed_form import ClosedForm
from torchkoopman.fitting.quality import Unexplained
from torchkoopman.fitting.resuming import same_calibration
from torchkoopman.fitting.snapshots import fingerprint, frames_of, frames_state
from torchkoopman.fitting.streams import NO_DATA
from torchkoopman.koopman.coordinates import CoordinateOptions, resolve_frames
from torchkoopman.koopman.principal import layer_coordinates
from torchkoopman.observe.launched import initialised
from torchkoopman.observe.processes import digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from torchkoopman.koopman.coordinates import Coordinates
    from torchkoopman.koopman.span import Span
    from torchkoopman.observe.few_rows import FewRows
    from torchkoopman.observe.moments import Moments
    from torchkoopman.observe.processes import Processes
    from torchkoopman.observe.trajectory import Trajectory


_MORE = 128
"""Directions in which rows stream beside four for each that is asked for: the axes of the first
rows are not those of all, and these are found among so many."""


class _Held(Calibration):
    """Rows held back; axes in float64, as many as there are."""

    def _chosen(
        self, moments: Moments | FewRows, layers: Sequence[str], precision: torch.dtype
    ) -> list[Coordinates]:
        return layer_coordinates(moments, layers, self.options)


class WideStreams(ClosedForm):
    """What DMD keeps of a stream, whose layers may be wide.

    Moments of thousands of features cost more than the rows as long as these are few, and then
    more than the directions that are asked for. So rows of layers wider than 1 024 features are
    held back; read then, the fit is that of all of them, from their Gram matrix. With enough of
    them, and a number of directions as rank, they choose four times as many and 128 more, in which
    all rows stream on; the fit keeps the leading of these by the moments of the whole stream. With
    another rank, or many processes, the moments are those of all features.
    """

    rank: int | float

    def _begin(self) -> None:
        super()._begin()
        self._held: _Held | None = None
        """Rows held back, if they are."""
        self._frames: list[Coordinates] = []
        """The directions in which rows stream, of each layer; empty for all features."""
        self._outside: dict[str, Unexplained] = {}
        """What all rows have outside of these; empty where it is not known."""

    def _hold(self, stacked: Trajectory) -> None:
        """Take rows: hold them back, or let them stream."""
        widest = max(state.shape[-1] for state in stacked.states.values())
        fresh = not (self._frames or self._own.count or self._shared)
        if self._held is None and fresh and widest > WIDE and self._whole:
            self._held = self._holder(widest)
        if self._held is None:
            self._stream(stacked)
        elif self._held.add(stacked):
            self._settle()

    def _stream(self, stacked: Trajectory) -> None:
        rows = sampled = stacked.rows()
        if self._frames:
            pairs = zip(self._frames, rows.items(), strict=True)
            rows = {layer: frame(each.double()) for frame, (layer, each) in pairs}
            for frame, (layer, outside) in zip(self._frames, self._outside.items(), strict=False):
                outside.update(frame.inverse(rows[layer]), sampled[layer])
            sampled = {layer: each.to(stacked.dtype) for layer, each in rows.items()}
        self._take(rows, sampled, stacked)

    def _settled(self, span: Span) -> Self:
        """This fitter, or one in which the rows held back have streamed, for a span of the layers.

        Rows stay held back: they are chosen from anew when more have come.
        """
        if self._held is None or not self._held.held:
            return self
        fresh, held = copy.copy(self), copy.copy(self._held)
        fresh.frames = resolve_frames(self.frames, self._widths())
        held.options, fresh._held = CoordinateOptions(self.rank, frames=fresh.frames), None
        held.held = [
            replace(each, states={layer: each.states[layer] for layer in span.layers})
            for each in held.held
        ]
        fresh.rank = -1  # of the directions that are chosen now
        fresh._open(span)
        fresh._frames, rows = held.finish()
        require_rows(self.holding(), fresh._frames[0].size + 1, ", or use a lower rank")
        for each in rows:
            fresh._stream(each)
        return fresh

    def _notes(self) -> tuple[str, ...]:
        if not self._frames or self.rank == -1:
            return ()
        size = self._frames[0].size
        said = f"rows streamed in {size} directions of each layer, which the first of them chose"
        if self._outside:
            known = (f"{each.value:.2%} of {layer}" for layer, each in self._outside.items())
            said += f"; of the variance of all rows they leave out {', '.join(known)}"
        return (said,)

    def holding(self) -> int:
        """Rows held back."""
        held = () if self._held is None else self._held.held
        return sum(int(each.counted().sum()) for each in held)

    @property
    def _whole(self) -> bool:
        """Whether rows are weighed alike and judged."""
        return self.halflife is None and self.residuals is True

    def _holder(self, widest: int) -> _Held:
        few = 4 * round(self.rank) + _MORE if self.rank >= 1 else widest
        if initialised() or 2 * few > widest:
            return _Held(CoordinateOptions(-1), widest // 2)
        return _Held(CoordinateOptions(few, frames=self.frames), None)

    def _settle(self) -> None:
        """Let the rows held back stream, and those to come."""
        held, self._held = self._held, None
        assert held is not None
        rows = held.held
        if held.options.rank >= 1:
            self._frames, rows = held.finish()
            self._outside = {layer: Unexplained() for layer in rows[0].layers}
        with self._own.all_or_nothing():
            for each in rows:
                self._stream(each)

    def _measured(self) -> dict[str, Any]:
        known = self._moments.count > 0 or bool(self.holding())
        tensors = [each for frame in self._frames for each in frame.state_dict().values()]
        wide = bool(self._own.count) and max(self._widths().values()) > WIDE
        return {
            "widths": self._widths() if known else None,
            "dtype": str(self._precision) if known else None,
            "calibration": digest(*tensors) if tensors else "all features" if wide else None,
        }

    def _said(self) -> dict[str, Any]:
        said = super()._said()
        return {**said, "new rows": said["new rows"] + self.holding()}

    def _united(
        self, processes: Processes, said: Sequence[Mapping[str, Any]], agreed: Mapping[str, Any]
    ) -> tuple[torch.device, dict[str, int]]:
        if agreed["widths"] is None:
            raise ValueError(NO_DATA)
        span = self._following()
        self._precision = getattr(torch, agreed["dtype"].removeprefix("torch."))
        known = [rank for rank, each in enumerate(said) if each["calibration"] is not None]
        frames = processes.told(lambda: self._frames, known[0]) if known else []
        held, self._held = self._held, None
        self._outside = {}  # of the rows of one process
        rows = [] if held is None else held.held
        device = rows[0].device if rows else processes.device
        if total := self._moments.count:
            device = self._moments.viewed().mean(span.layers[0]).device
        if held is not None or not total:
            self._open(span)
            self._frames = [frame.to(device) for frame in frames]
        for each in rows:
            self._stream(each)
        if self._frames:
            return device, {n: f.size for n, f in zip(span.layers, self._frames, strict=True)}
        return device, agreed["widths"]

    def _state(self) -> dict[str, Any]:
        held = None if self._held is None else self._held.state_dict()
        outside = {layer: each.state_dict() for layer, each in self._outside.items()}
        frames = frames_state(self._frames)
        return {**super()._state(), "coordinates": frames, "outside": outside, "held": held}

    def _load(self, state: dict[str, Any]) -> None:
        super()._load(state)
        self._frames = frames_of(state.get("coordinates", []))  # older states have none of these
        outside = state.get("outside", {}).items()
        self._outside = {layer: Unexplained().load_state_dict(each) for layer, each in outside}
        if state.get("held") is not None:
            held = _Held(CoordinateOptions(), None).load_state_dict(state["held"]).held
            if held:
                widest = max(each.shape[-1] for each in held[0].states.values())
                self._held = self._holder(widest).load_state_dict(state["held"])

    def _merge(self, other: Self) -> None:
        mine, self._held = self._held, None
        theirs = [] if other._held is None else other._held.held
        if other._own.count or other._shared is not None:
            if self._span is None or mine is not None:
                self._frames = copy.deepcopy(other._frames)
                self._outside = {layer: Unexplained() for layer in other._outside}
            same_calibration(*(list(map(fingerprint, each._frames)) for each in (self, other)))
            super()._merge(other)
            both = self._outside.keys() & other._outside.keys()
            self._outside = {
                layer: each.merge(other._outside[layer])
                for layer, each in self._outside.items()
                if layer in both
            }
            for each in [] if mine is None else mine.held:
                self._stream(each)
        else:
            super()._merge(other)
            self._held = mine
        for each in theirs:
            self._hold(each)

    def _widths(self) -> dict[str, int]:
        layers = self._following().layers
        if self._frames:
            return {layer: f.features for layer, f in zip(layers, self._frames, strict=True)}
        if self._held is not None and self._held.held:
            states: Mapping[str, Tensor] = self._held.held[0].states
            return {layer: states[layer].shape[-1] for layer in layers}
        moments = self._moments
        return {layer: moments.features(layer) for layer in layers}
