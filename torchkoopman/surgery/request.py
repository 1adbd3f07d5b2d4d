"""Plans: what a swap is to do, and what every way of doing it returns."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torchkoopman.surgery.replay import Recorded, Recording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


@dataclass(frozen=True)
class Plan:
    """What a swap is to do; every way to do it takes one."""

    model: nn.Module
    """Left as it is."""
    module: nn.Module
    """What is put in."""
    start: str
    end: str
    recording: Recording | None
    """The model's run on example inputs, if there are any."""
    side_inputs: Sequence[str] | None = None
    keep_escapes: bool = False

    @property
    def oracle(self) -> Plan:
        """The same with the recorded output in place of the module."""
        assert self.recording is not None
        return replace(self, module=Recorded(self.recording.state(self.end)))


@dataclass(frozen=True)
class Spliced:
    """An edited model."""

    model: nn.Module
    module: str
    """Name of the module that was put in."""
    layers: tuple[str, ...]
    """The layers that it replaces."""
    notes: list[str] = field(default_factory=list)


def free_name(root: nn.Module, start: str, end: str) -> str:
    """A name for the module that no attribute of the model has."""
    plain = "koopman_" + re.sub(r"\W+", "_", f"{start}_to_{end}")
    names = (plain, *(f"{plain}_{count}" for count in range(2, 1000)))
    return next(name for name in names if not hasattr(root, name))
