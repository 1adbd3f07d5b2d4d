"""Report: what a probe saw, what it passed on, and what it left out, as a value to print."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.tables import Table, Tabular

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchkoopman.observe.capture import Reading
    from torchkoopman.observe.trajectory import Trajectory


class Count:
    """A sum of ints and one-element tensors, read from their device only when asked."""

    def __init__(self) -> None:
        self._known = 0
        self._pending: Tensor | None = None

    def add(self, amount: int | Tensor) -> None:
        """Add without waiting for a device."""
        if isinstance(amount, int):
            self._known += amount
        elif self._pending is None:
            self._pending = amount
        else:
            self._pending = self._pending + amount.to(self._pending.device, non_blocking=True)

    def __int__(self) -> int:
        return self._known + (0 if self._pending is None else int(self._pending))


@dataclass(frozen=True)
class StreamReport:
    """What was read of one layer, or of one of its calls if a pass calls it several times."""

    layer: str
    """The stream's name: that of the layer, with ``#k`` for its k-th call."""
    calls: int
    """Number of times it was read."""
    rows: int
    """Rows passed on to the listeners, without those that are masked out or not finite."""
    shape: tuple[int, ...]
    """``(batch, positions, features)`` of the latest state passed on."""
    output: str
    """The tensor in the layer's output that is the state: its path, ``""`` for the output itself,
    or ``"function NAME"``."""
    layout: str
    """The einops pattern that made the state of it, given or by default."""
    not_finite: int
    """Rows with a NaN or an infinity in this layer, padding included."""


@dataclass(frozen=True)
class ProbeReport(Tabular):
    """What a probe has read and what it could not read; print it."""

    streams: tuple[StreamReport, ...]
    """One for each layer, in order of execution; empty until a first complete forward pass."""
    forwards: int
    """Number of outermost forward passes."""
    trajectories: int
    """Number of forward passes that were passed on to the listeners."""
    unpaired: int
    """Number of forward passes left out because other layers ran than in the first complete one."""
    interrupted: int
    """Number of forward passes that ended with an exception."""
    skipped: Mapping[str, int]
    """Reason → layer calls that were not read: ``traced``, ``recompute``, ``outside`` (of any
    forward pass of a module around all layers), ``mode`` (``when=``), ``other`` (run by ``tk.fit``
    and the like for a probe of their own), ``empty batch``, ``sharded`` (a part of the state in
    each process), ``compiled``. A forward pass with such a call is not passed on."""
    dropped_rows: int
    """Rows that the mask counts, but that are not finite in some layer."""
    lost_hooks: tuple[str, ...]
    """Modules from which other code removed the probe's hooks; ``""`` is the model."""
    never_fired: tuple[str, ...]
    """Layers that have not run so far."""
    positions: int = 0
    """Positions of all samples passed on, whether they count or not; where ``positions=`` was given
    only those that were drawn."""
    masks: Mapping[str, int] = field(default_factory=dict)
    """Where the mask came from, ``probe.mask`` or ``attention_mask`` (the model's own) → number of
    trajectories."""
    masks_aside: Mapping[str, int] = field(default_factory=dict)
    """Why an ``attention_mask`` of the model was not used → number of trajectories."""
    compiled_calls: int = 0
    """Calls in code that was compiled while the probe was on, which cannot be read."""
    compiled: tuple[str, ...] = ()
    """Layers, and modules around them, that were compiled while the probe was on."""
    replaced: tuple[str, ...] = ()
    """Layers that were replaced by other modules, without the probe's hooks."""
    modes: Mapping[str, int] = field(default_factory=dict)
    """Mode of the outermost module called, ``train`` or ``eval`` → trajectories passed on."""

    def table(self) -> Table:
        """A row for each layer; above it what else was counted."""
        lines = [
            f"{self.forwards} forward passes, {self.trajectories} trajectories; "
            f"{self.unpaired} unpaired, {self.interrupted} interrupted, "
            f"{self.dropped_rows} rows dropped because not finite"
        ]
        skipped = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
        aside = self.masks_aside.items()
        for title, text in (
            ("skipped layer calls", skipped),
            ("rows counted", self._counted()),
            ("attention_mask left aside", "; ".join(f"{k}×, {why}" for why, k in aside)),
            ("calls in compiled code, not read", str(self.compiled_calls or "")),
            ("taken in both", _mixed(self.modes)),
            ("never fired", ", ".join(map(repr, self.never_fired))),
            ("lost hooks on", ", ".join(map(repr, self.lost_hooks))),
            ("replaced since attach()", ", ".join(map(repr, self.replaced))),
        ):
            if text:
                lines.append(f"{title}: {text}")
        rows = [
            [
                stream.layer,
                " × ".join(map(str, stream.shape)),
                str(stream.calls),
                str(stream.rows),
                str(stream.not_finite),
                repr(stream.output) if stream.output else "",
                repr(stream.layout),
            ]
            for stream in self.streams
        ]
        head = ["layer", "state", "calls", "rows", "not finite", "output", "layout"]
        return Table(head, rows, lines, text=(0, 5, 6))

    def _counted(self) -> str:
        if not self.masks or not self.streams:
            return ""
        said = ", ".join(
            f"{source} in {count} trajectories" for source, count in self.masks.items()
        )
        return f"{self.streams[0].rows} of {self.positions} positions, by {said}"


@dataclass
class StreamLedger:
    """What is counted of one stream while the probe is on."""

    shape: tuple[int, ...] = ()
    output: str = ""
    layout: str = ""
    rows: Count = field(default_factory=Count)
    not_finite: Count = field(default_factory=Count)


class Ledger:
    """Everything that is counted while the probe is on; :meth:`report` reads it out."""

    def __init__(self, required: Sequence[str], device: torch.device) -> None:
        self.required = tuple(required)
        self.forwards = self.trajectories = self.unpaired = self.interrupted = 0
        self.skipped: Counter[str] = Counter()
        self.fired: set[str] = set()
        self.reads: Counter[str] = Counter()
        self.dropped = Count()
        self.positions = 0
        self.masks: Counter[str] = Counter()
        self.masks_aside: Counter[str] = Counter()
        self.streams: dict[str, StreamLedger] = {}
        self.compiled_calls = torch.zeros((), dtype=torch.long, device=device)
        self.compiled: dict[str, None] = {}
        self.replaced: dict[str, None] = {}
        self.modes: Counter[str] = Counter()

    def record(
        self,
        trajectory: Trajectory,
        readings: Mapping[str, Reading],
        mask_from: str = "",
        mask_aside: str = "",
    ) -> None:
        """Count a trajectory that is about to be passed on; the first one fixes the streams.

        Args:
            trajectory: with its mask, if it has one.
            readings: of its layers.
            mask_from: who said which positions count; empty for nobody.
            mask_aside: why a mask of the model was not taken; empty without one.
        """
        self.masks.update([mask_from] if mask_from else [])
        self.masks_aside.update([mask_aside] if mask_aside else [])
        mask, chosen = trajectory.mask, trajectory.chosen
        each = trajectory.positions if chosen is None else chosen.shape[1]
        rows: int | Tensor = trajectory.batch * each
        self.positions += trajectory.batch * each
        if mask is not None:
            rows = trajectory.counted().sum()
        self.trajectories += 1
        # At once: what a first pass was interrupted in would be taken for all streams there are.
        self.streams = self.streams or {layer: StreamLedger() for layer in readings}
        for layer, reading in readings.items():
            stream = self.streams[layer]
            stream.shape, view = tuple(reading.state.shape), reading.view
            stream.output, stream.layout = view.source, view.layout.pattern
            stream.rows.add(rows)
            if reading.finite is not None:
                stream.not_finite.add((~reading.finite).sum())

    def mixes(self, mode: str) -> bool:
        """Count a trajectory by its mode; True for the first that is of another than all before."""
        self.modes[mode] += 1
        return self.modes[mode] == 1 and len(self.modes) > 1

    def report(self, lost_hooks: tuple[str, ...]) -> ProbeReport:
        """The counts as they stand; waits for the device that some of them are on."""
        streams = (
            StreamReport(
                layer,
                self.reads[layer if "#" in layer else f"{layer}#0"],
                int(stream.rows),
                stream.shape,
                stream.output,
                stream.layout,
                int(stream.not_finite),
            )
            for layer, stream in self.streams.items()
        )
        return ProbeReport(
            tuple(streams),
            self.forwards,
            self.trajectories,
            self.unpaired,
            self.interrupted,
            dict(self.skipped),
            int(self.dropped),
            lost_hooks,
            tuple(mark for mark in self.required if mark not in self.fired),
            self.positions,
            dict(self.masks),
            dict(self.masks_aside),
            int(self.compiled_calls),
            tuple(self.compiled),
            tuple(self.replaced),
            dict(self.modes),
        )


def _mixed(modes: Mapping[str, int]) -> str:
    """How many trajectories are of training and of evaluation, where both are there."""
    if len(modes) < 2:
        return ""
    return f"{modes['train']} trajectories in training, {modes['eval']} in evaluation"
