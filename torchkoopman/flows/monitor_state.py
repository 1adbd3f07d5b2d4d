"""The state of a monitor of flows: what of it goes into a checkpoint, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from torchkoopman.flows.history import FlowHistory
from torchkoopman.flows.looks import FlowLook
from torchkoopman.flows.monitor_starts import marks
from torchkoopman.storage.states import read_state, write_state

if TYPE_CHECKING:
    from torch import nn

    from torchkoopman.flows.monitor_starts import Starts

_VERSION = 1
_KIND = "the state of a monitor of flows"


class SavedFlowMonitor:
    """What a monitor has seen of a training, which goes on where its checkpoint was taken."""

    starts: Mapping[str, Starts]
    _model: nn.Module | None

    def _begin(self) -> None:
        """Have seen nothing."""
        self._done = 0
        """Optimiser steps."""
        self._latest: FlowLook | None = None
        self._history = FlowHistory.empty(tuple(self.starts))
        self._loaded: dict[str, str] | None = None
        """Marks of the starts that the loaded state is of."""
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
            "version": _VERSION,
            "step": self._done,
            "starts": marks(self.starts),
            "latest": latest,
            "history": {name: each.clone() for name, each in self._history.tensors().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go on from what :meth:`state_dict` returned; :meth:`attach` compares starts and step.

        Raises:
            RuntimeError: the monitor is attached.
            TypeError: no dictionary.
            ValueError: no such state, or a damaged one; nothing is changed then.
        """
        if self._model is not None:
            raise RuntimeError("load the state before attach(), which compares it with the model.")
        if not isinstance(state, Mapping):
            raise TypeError(
                "load_state_dict() takes what state_dict() of a FlowMonitor returned, a "
                f"dictionary; it got a {type(state).__name__}."
            )
        if state.get("version") != _VERSION or not {"starts", "latest", "history"} <= state.keys():
            raise ValueError(
                f"this is not a state of a FlowMonitor of version {_VERSION}: it has "
                f"{sorted(map(str, state))[:6]}. Give what state_dict() returned."
            )
        try:
            known = {str(name): str(mark) for name, mark in state["starts"].items()}
            done = int(state["step"])
            latest = None if state["latest"] is None else FlowLook(**_copied(state["latest"]))
            history = FlowHistory.of_tensors(tuple(known), _copied(state["history"]))
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"the state of a FlowMonitor is damaged or was changed ({error!r}). Take an "
                "earlier one."
            ) from error
        self._done, self._latest, self._history = done, latest, history
        self._loaded = known
        return self

    def save(self, path: str | Path) -> None:
        """Write the state into a ``.safetensors`` file, whole or not at all."""
        write_state(Path(path), _KIND, self.state_dict())

    def load(self, path: str | Path) -> Self:
        """Go on from a file of :meth:`save`.

        Raises:
            FileError: it is not there, damaged or of something else.
            ValueError: see :meth:`load_state_dict`.
        """
        return self.load_state_dict(read_state(Path(path), _KIND))

    def reset(self) -> Self:
        """Forget all that was seen, for a training that begins anew.

        Raises:
            RuntimeError: the monitor is attached.
        """
        if self._model is not None:
            raise RuntimeError("the monitor is attached: close() it before it forgets.")
        self._begin()
        return self

    def _require_same_starts(self) -> None:
        """Refuse a state that was saved with other starts."""
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


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        str(name): each.clone() if isinstance(each, Tensor) else each
        for name, each in state.items()
    }
