"""The state of a monitor of flows: what of it goes into a checkpoint, and back."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from torchkoopman.fitting.stepped import VERSION, Stepped
from torchkoopman.flows.history import FlowHistory
from torchkoopman.flows.looks import FlowLook
from torchkoopman.flows.monitor_starts import marks, settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from torchkoopman.flows.monitor_starts import Starts


class SavedFlowMonitor(Stepped):
    """What a monitor has seen of a training, which goes on where its checkpoint was taken."""

    KIND = "the state of a monitor of flows"
    starts: Mapping[str, Starts]
    steps: int
    options: dict[str, Any]
    _model: nn.Module | None

    def _begin(self) -> None:
        """Have seen nothing."""
        self._done = 0
        """Optimiser steps."""
        self._latest: FlowLook | None = None
        self._history = FlowHistory.empty(tuple(self.starts))
        self._loaded: dict[str, str] | None = None
        """Marks of the starts that the loaded state is of."""
        self._found_by: dict[str, float] = {}
        """Settings that the loaded state is of."""
        self._hindrance = ""
        """What went wrong first, and was warned of."""

    @property
    def attached(self) -> bool:
        """Whether it looks at a model."""
        return self._model is not None

    @property
    def latest(self) -> FlowLook:
        """The latest look.

        Raises:
            ValueError: there was none yet.
        """
        if self._latest is None:
            raise ValueError("FlowMonitor has not looked yet: attach() it, or call look().")
        return self._latest

    @property
    def history(self) -> FlowHistory:
        """What all looks have said until now."""
        return self._history

    def state_dict(self) -> dict[str, Any]:
        """All that was seen, as a copy of tensors and plain types.

        Take it after ``step()``, with the model's own: a monitor that loads it goes on as this one
        would.
        """
        latest = None if self._latest is None else asdict(self._latest)
        return {
            "version": VERSION,
            "step": self._done,
            "starts": marks(self.starts),
            "settings": settings(self.steps, self.options),
            "latest": latest,
            "history": {name: each.clone() for name, each in self._history.tensors().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go on from what :meth:`state_dict` returned.

        :meth:`attach` compares its step, its starts and how points were found.

        Raises:
            RuntimeError: the monitor is attached.
            TypeError: no dictionary.
            ValueError: no such state, or a damaged one; nothing is changed then.
        """
        self._require_state(state, {"starts", "settings", "latest", "history"})
        try:
            known = {str(name): str(mark) for name, mark in state["starts"].items()}
            found_by = {str(name): float(value) for name, value in state["settings"].items()}
            done = int(state["step"])
            latest = None if state["latest"] is None else FlowLook(**_copied(state["latest"]))
            history = FlowHistory.of_tensors(tuple(known), _copied(state["history"]))
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"the state of a FlowMonitor is damaged or was changed ({error!r}). Take an "
                "earlier one."
            ) from error
        self._done, self._latest, self._history = done, latest, history
        self._loaded, self._found_by = known, found_by
        return self

    def _require_same(self) -> None:
        """Refuse a state that was saved with other starts, or of points found otherwise."""
        own = marks(self.starts)
        if self._loaded is not None and self._loaded != own:
            other = sorted(
                name for name in own | self._loaded if own.get(name) != self._loaded.get(name)
            )
            raise ValueError(
                f"the state of the FlowMonitor is of other starts ({', '.join(other)}): its curves "
                "would go on with something else. Give the starts of the training that is resumed, "
                "such as noise from a generator with a seed, or start over without the state."
            )
        given = settings(self.steps, self.options)
        for name, value in self._found_by.items():
            if given.get(name) != value:
                raise ValueError(
                    f"the state of the FlowMonitor is of {name}={value:.9g}, and this one has "
                    f"{given.get(name, math.nan):.9g}: what counts as an attractor would change "
                    "within its curves. Give the number of the resumed training, or start over "
                    "without the state."
                )


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        str(name): each.clone() if isinstance(each, Tensor) else each
        for name, each in state.items()
    }
