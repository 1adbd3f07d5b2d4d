"""Report: what a probe saw, what it passed on, and what it left out, as a value to print."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torchkoopman.tables import Table, Tabular

if TYPE_CHECKING:
    from collections.abc import Mapping


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


def _mixed(modes: Mapping[str, int]) -> str:
    """How many trajectories are of training and of evaluation, where both are there."""
    if len(modes) < 2:
        return ""
    return f"{modes['train']} trajectories in training, {modes['eval']} in evaluation"
