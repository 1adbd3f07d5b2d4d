"""A Lightning callback that follows the spectrum of layers through a training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback
from torchkoopman_tensorboard import EventFolder

from torchkoopman import TrainingMonitor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch import LightningModule, Trainer


class KoopmanCallback(Callback):
    """Follows the spectrum of layers through a training, and writes it for TensorBoard.

    Its attribute ``monitor`` is a :class:`torchkoopman.TrainingMonitor`, driven by the trainer:
    ``log_every`` and ``sample_every`` count ``trainer.global_step``, validation passes are left
    out, and hooks come off after an exception too. Its state is in the trainer's checkpoints, by
    the names of its layers, and a resumed training goes on with the same curves. Of many processes
    the one of rank zero watches its shard of the data; nothing is communicated. With
    ``fast_dev_run`` the layers are only looked for.

    Example:
        >>> import lightning.pytorch as pl
        >>> from torchkoopman_lightning import KoopmanCallback
        >>> class Classifier(pl.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.body = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh())
        ...         self.head = torch.nn.Linear(16, 3)
        ...     def training_step(self, batch, index):
        ...         inputs, labels = batch
        ...         return torch.nn.functional.cross_entropy(self.head(self.body(inputs)), labels)
        ...     def configure_optimizers(self):
        ...         return torch.optim.Adam(self.parameters())
        >>> callback = KoopmanCallback("body.*", sample_every=1, log_every=5)
        >>> off = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
        >>> quiet = {"max_epochs": 1, "accelerator": "cpu", **dict.fromkeys(off, False)}
        >>> pl.Trainer(callbacks=[callback], **quiet).fit(Classifier(), train.loader(500))
        >>> callback.monitor.tracks.steps  # and event files are in the folder "koopman"
        (5.0, 10.0)

    Args:
        layers: a name in the ``LightningModule``, a wildcard such as ``"blocks.*"``, or several.
        fitter: what learns; None for that of ``TrainingMonitor``.
        folder: of the event files, a different one for each callback; None for ``koopman`` in
            ``trainer.default_root_dir``. A training that begins anew hides earlier points in it.
            An :class:`torchkoopman_tensorboard.EventFolder` has options of its own.
        sample_every: steps from one that is watched to the next.
        log_every: steps from one spectrum to the next.
        rows: of each forward pass at most.
        **reading: ``layout``, ``output``, ``attention_mask`` and ``gather`` of
            :func:`torchkoopman.attach`.

    Raises:
        TypeError: layers that are not names.
        ValueError: when the training starts: a layer that does not exist or is compiled; a
            checkpoint of other layers.
        OSError: when the training starts: the folder cannot be written to.
    """

    def __init__(
        self,
        layers: str | Sequence[str],
        fitter: Any = None,
        *,
        folder: str | Path | EventFolder | None = None,
        sample_every: int = 20,
        log_every: int = 200,
        rows: int = 64,
        **reading: Any,
    ) -> None:
        if "log" in reading:
            raise TypeError(
                f"KoopmanCallback got log={reading['log']!r}, but writes event files itself, into "
                "folder=. For another kind of log use torchkoopman.TrainingMonitor."
            )
        several = isinstance(layers, Iterable) and not isinstance(layers, str)
        names = list(layers) if several else [layers]
        if not all(isinstance(name, str) for name in names):
            raise TypeError(
                f"KoopmanCallback got the layers {layers!r}; give names or wildcards, by which "
                "its state in checkpoints is known."
            )
        self.folder = folder
        self.monitor = TrainingMonitor(
            names,
            fitter=fitter,
            sample_every=sample_every,
            log_every=log_every,
            rows=rows,
            **reading,
        )
        self._names = names
        self._loaded: dict[str, Any] | None = None
        self._watches = False
        """Whether this process watches, or did."""

    @property
    def state_key(self) -> str:
        """Of the state in checkpoints."""
        return self._generate_state_key(layers=self._names)

    def state_dict(self) -> dict[str, Any]:
        """That of the monitor; empty in processes that do not watch."""
        return self.monitor.state_dict() if self._watches else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it until the training starts: some strategies restore before others attach."""
        self._loaded = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the hooks on, and go on from what was loaded."""
        self.monitor.close(quiet=True)
        state, self._loaded = self._loaded, None
        if state is not None:
            self.monitor.load_state_dict(state)
        if getattr(trainer, "fast_dev_run", False) or not trainer.is_global_zero:
            self.monitor.check(pl_module)
            return
        folder = self.folder or Path(trainer.default_root_dir) / "koopman"
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
        """Take the hooks off."""
        self.monitor.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Take the hooks off: of all events after an exception this is the only one."""
        self.monitor.close(quiet=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks off, however the training ended."""
        self.monitor.close(quiet=True)
