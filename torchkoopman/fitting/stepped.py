"""What follows a training step by step: it counts them, and its state goes into checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torchkoopman.storage.states import read_state, write_state

if TYPE_CHECKING:
    from types import TracebackType

VERSION = 1
"""Of the states of monitors."""


class Stepped(ABC):
    """A monitor of a training: attached to a model, told of each step, saved with the model."""

    KIND: ClassVar[str]
    """What a file of its state says that it holds."""
    _done: int
    """Optimiser steps."""

    @property
    @abstractmethod
    def attached(self) -> bool:
        """Whether it follows a model."""

    @abstractmethod
    def close(self, *, quiet: bool = False) -> None:
        """Let the model go, and close the log."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that was seen, as a copy of tensors and plain types."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go on from what :meth:`state_dict` returned."""

    @abstractmethod
    def _begin(self) -> None:
        """Have seen nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(quiet=kind is not None)

    def save(self, path: str | Path) -> None:
        """Write the state into a ``.safetensors`` file, whole or not at all."""
        write_state(Path(path), self.KIND, self.state_dict())

    def load(self, path: str | Path) -> Self:
        """Go on from a file of :meth:`save`.

        Raises:
            FileError: it is not there, damaged or of something else.
            ValueError: see :meth:`load_state_dict`.
        """
        return self.load_state_dict(read_state(Path(path), self.KIND))

    def reset(self) -> Self:
        """Forget all that was seen and followed, for a training that begins anew.

        Raises:
            RuntimeError: the monitor is attached.
        """
        if self.attached:
            raise RuntimeError("the monitor is attached: close() it before it forgets.")
        self._begin()
        return self

    def _require_attached(self) -> None:
        if not self.attached:
            raise RuntimeError("the monitor is not attached: `with monitor.attach(model):` first.")

    def _count(self, step: int | None) -> int:
        """Count a step, or go to the one given; returns the step before.

        Raises:
            RuntimeError: the monitor is not attached.
            ValueError: fewer steps than before.
        """
        self._require_attached()
        before = self._done
        now = before + 1 if step is None else step
        if now < before:
            raise ValueError(
                f"step({step}) was called after step {before}: steps never decrease. For another "
                "training call attach() again."
            )
        self._done = now
        return before

    def _require_state(self, state: Mapping[str, Any], keys: set[str]) -> None:
        """Refuse what is no state of a monitor of this kind, or what comes too late.

        Raises:
            RuntimeError: the monitor is attached.
            TypeError: no dictionary.
            ValueError: one without these keys, or of another version.
        """
        own = type(self).__name__
        if self.attached:
            raise RuntimeError("load the state before attach(), which compares it with the model.")
        if not isinstance(state, Mapping):
            raise TypeError(
                f"load_state_dict() takes what state_dict() of a {own} returned, a dictionary; it "
                f"got a {type(state).__name__}."
            )
        if state.get("version") != VERSION or not keys <= state.keys():
            raise ValueError(
                f"this is not a state of a {own} of version {VERSION}: it has "
                f"{sorted(map(str, state))[:6]}. Give what state_dict() returned."
            )
