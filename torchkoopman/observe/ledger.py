"""The ledger: everything that is counted while a probe is on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.observe.report import ProbeReport, StreamReport

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
