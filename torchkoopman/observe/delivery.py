"""Delivery: what was read in one forward pass, as a trajectory for each listener in turn."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.observe.capture import plain_modes
from torchkoopman.observe.causes import warn_of_mixture, warn_of_padding
from torchkoopman.observe.masks import ENCODERS
from torchkoopman.observe.trajectory import Trajectory
from torchkoopman.observe.turns import turn_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torchkoopman.observe.capture import Reading, When
    from torchkoopman.observe.ledger import Ledger
    from torchkoopman.observe.passes import Forward
    from torchkoopman.observe.views import View


class Companions(threading.local):
    """What accompanies the forward passes of one thread."""

    labels: Tensor | None = None
    mask: Tensor | None = None
    begun: int = 0
    """Forward passes begun in this thread."""


class Delivery:
    """Makes a trajectory of a complete pass, counts it, and calls the listeners.

    Args:
        ledger: where it is counted.
        when: which passes were asked for; None if nobody said.
    """

    def __init__(self, ledger: Ledger, when: When | None) -> None:
        self.listeners: list[Callable[[Trajectory], object]] = []
        self.with_pass = Companions()
        self._ledger = ledger
        self._when = when
        self._padded = False
        """Whether it was said that padding counts."""

    def __call__(self, readings: Mapping[str, Reading], forward: Forward) -> None:
        """Make the trajectory and pass it on, outside the modes that the model runs under.

        Raises:
            ValueError: a width that changed, or labels or a mask that do not fit.
        """
        for stream, reading in readings.items():
            self._check_width(stream, reading.state.shape[-1])
        device = next(iter(readings.values())).state.device
        with plain_modes(device.type, grad=True):
            batch, positions = len(next(iter(readings.values())).state), forward.sample.count
            own = self.with_pass.mask
            mask = _ordinary(forward.mask.of(batch, positions) if own is None else own, device)
            views = (_view(each, masked=mask is not None) for each in readings.values())
            trajectory = Trajectory(
                {stream: reading.state for stream, reading in readings.items()},
                _ordinary(self.with_pass.labels, device),
                None if mask is None else forward.sample.of(mask.bool(), "the mask"),
                dict(zip(readings, views, strict=True)),
                forward.inputs,
                forward.sample.chosen(batch, device),
            )
            trajectory = self._without_bad_rows(trajectory, readings)
            source = "" if mask is None else forward.mask.name if own is None else "probe.mask"
            aside = forward.mask.aside if own is None else ""
            self._ledger.record(trajectory, readings, source, aside)
            self._warn_of_padding(aside, readings)
            if self._ledger.mixes(forward.mode) and self._when is None:
                warn_of_mixture(forward.mode)
            for listener in self.listeners:
                with turn_of(listener):
                    listener(trajectory)

    def _warn_of_padding(self, aside: str, readings: Mapping[str, Reading]) -> None:
        """Say once that padding counts, where a mask was given that could not be taken."""
        axes = (reading.view.layout.pattern.split("->")[0].split() for reading in readings.values())
        # With two axes samples have no positions.
        if aside and not aside.endswith(ENCODERS) and max(map(len, axes)) > 2 and not self._padded:
            self._padded = True
            warn_of_padding(aside)

    def _check_width(self, stream: str, width: int) -> None:
        known = self._ledger.streams.get(stream)
        if known is not None and known.shape and known.shape[-1] != width:
            raise ValueError(
                f"layer {stream!r} gave {width} features, but {known.shape[-1]} before: a "
                "linear system needs states of one size. If an axis of varying length (tokens, "
                "pixels) is among the features, put it among the positions with layout=...; "
                "else attach a new probe."
            )

    def _without_bad_rows(
        self, trajectory: Trajectory, readings: Mapping[str, Reading]
    ) -> Trajectory:
        """The trajectory with the rows masked out that are not finite in some layer."""
        known = [reading.finite for reading in readings.values() if reading.finite is not None]
        if not known:
            return trajectory
        mask, counted = trajectory.full_mask(), trajectory.counted()
        finite = reduce(
            torch.logical_and, (each.to(counted.device, non_blocking=True) for each in known)
        )
        self._ledger.dropped.add((counted & ~finite).sum())
        return replace(trajectory, mask=mask & finite)


def looks_along(listener: Callable[[Trajectory], object]) -> bool:
    """Whether a listener needs all positions, rows or not; ``contextual = False`` says no."""
    return bool(getattr(getattr(listener, "__self__", listener), "contextual", True))


def _view(reading: Reading, *, masked: bool) -> View:
    """How a layer was read, and whether a mask said which of its rows count."""
    view = reading.view
    return view if view.masked == masked else replace(view, masked=masked)


def _ordinary(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    """The tensor on the states' device, and fit for gradients if made under inference mode."""
    if tensor is None:
        return None
    tensor = tensor.to(device, non_blocking=True)
    return tensor.clone() if tensor.is_inference() else tensor
