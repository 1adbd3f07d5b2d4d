"""A Lightning callback that drives a monitor of a training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback
from torchkoopman_tensorboard import EventFolder

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from torchkoopman import TrainingMonitor
    from torchkoopman.flows import FlowMonitor


class MonitorCallback(Callback):
    """Tells a monitor of the training's steps, keeps its state, and closes it in the end."""

    monitor: TrainingMonitor | FlowMonitor

    def __init__(
        self,
        monitor: TrainingMonitor | FlowMonitor,
        folder: str | Path | EventFolder | None,
        name: str,
    ) -> None:
        self.monitor = monitor
        self.folder = folder
        self.name = name
        """Of the folder, where none was given."""
        self._loaded: dict[str, Any] | None = None
        self._watches = False
        """Whether this process watches, or did."""

    def state_dict(self) -> dict[str, Any]:
        """That of the monitor; empty in processes that do not use it."""
        return self.monitor.state_dict() if self._watches else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it until the training starts: some strategies restore before others attach."""
        self._loaded = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, and go on from what was loaded."""
        self.monitor.close(quiet=True)
        state, self._loaded = self._loaded, None
        if state is not None:
            self.monitor.load_state_dict(state)
        if getattr(trainer, "fast_dev_run", False) or not trainer.is_global_zero:
            self.monitor.check(pl_module)
            return
        folder = self.folder or Path(trainer.default_root_dir) / self.name
        self.monitor.log = folder if isinstance(folder, EventFolder) else EventFolder(folder)
        self.monitor.attach(pl_module, trainer.global_step)
        self._watches = True

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count a step, if the optimiser has made one."""
        if self.monitor.attached:
            self.monitor.step(trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the model go."""
        self.monitor.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Let the model go: of all events after an exception this is the only one."""
        self.monitor.close(quiet=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the model go, however the training ended."""
        self.monitor.close(quiet=True)
