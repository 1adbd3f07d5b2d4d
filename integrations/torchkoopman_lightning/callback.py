"""A Lightning callback that follows the spectrum of layers through a training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torchkoopman import TrainingMonitor
from torchkoopman_lightning.driving import MonitorCallback

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torchkoopman_tensorboard import EventFolder


class KoopmanCallback(MonitorCallback):
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

    monitor: TrainingMonitor

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
        monitor = TrainingMonitor(
            names,
            fitter=fitter,
            sample_every=sample_every,
            log_every=log_every,
            rows=rows,
            **reading,
        )
        super().__init__(monitor, folder, "koopman")
        self._names = names

    @property
    def state_key(self) -> str:
        """Of the state in checkpoints."""
        return self._generate_state_key(layers=self._names)
