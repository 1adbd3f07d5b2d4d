"""A callback of transformers' Trainer that drives a monitor of a training."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torchkoopman_tensorboard import EventFolder
from transformers.trainer_callback import TrainerCallback

if TYPE_CHECKING:
    from types import TracebackType

    from torch import nn
    from transformers.trainer_callback import TrainerControl, TrainerState
    from transformers.training_args import TrainingArguments

    from torchkoopman import TrainingMonitor
    from torchkoopman.flows import FlowMonitor


class MonitorCallback(TrainerCallback):
    """Tells a monitor of the training's steps, and keeps its state beside the checkpoints."""

    monitor: TrainingMonitor | FlowMonitor

    def __init__(
        self,
        monitor: TrainingMonitor | FlowMonitor,
        name: str,
        folder: str | Path | EventFolder | None,
        resume_from: str | Path | None,
    ) -> None:
        self.monitor = monitor
        self.name = name
        self.folder = folder
        self.resume_from = resume_from

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.monitor.close(quiet=kind is not None)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Begin; a training that broke off, or begins again, is let go before."""
        model: nn.Module = kwargs["model"]
        self.monitor.close(quiet=True)
        self._refuse(args)
        if not state.is_world_process_zero:
            self.monitor.check(model)
            return
        if state.global_step:
            self._load(args, state)
        folder = self.folder or Path(str(args.output_dir)) / self.name
        self.monitor.log = folder if isinstance(folder, EventFolder) else EventFolder(folder)
        self.monitor.attach(model, state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count a step of the optimiser."""
        if self.monitor.attached:
            self.monitor.step(state.global_step)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the monitor's state beside the Trainer's."""
        if not self.monitor.attached:
            return
        path = self._checkpoint(args, state) / f"{self.name}.safetensors"
        try:
            self.monitor.save(path)
        except OSError as error:
            warnings.warn(
                f"the monitor's state could not be written to {str(path)!r}: {error}. A training "
                "that is resumed from there begins its curves anew.",
                RuntimeWarning,
                stacklevel=2,
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the model go."""
        self.monitor.close()

    def _refuse(self, args: TrainingArguments) -> None:
        """Refuse ways to train that the monitor cannot follow."""

    def _load(self, args: TrainingArguments, state: TrainerState) -> None:
        """The state in the checkpoint that the training goes on from; without it, none."""
        folder = Path(self.resume_from or self._checkpoint(args, state))
        path = folder / f"{self.name}.safetensors"
        if path.is_file():
            self.monitor.load(path)
        else:
            self.monitor.reset()

    def _checkpoint(self, args: TrainingArguments, state: TrainerState) -> Path:
        return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
