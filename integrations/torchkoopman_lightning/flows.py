"""A Lightning callback that follows the attractors of a model's flow through a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchkoopman.flows import FlowMonitor
from torchkoopman_lightning.driving import MonitorCallback

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor
    from torchkoopman_tensorboard import EventFolder

    from torchkoopman.flows import Flow


class FlowCallback(MonitorCallback):
    """Follows the attractors of a model's flow through a training, and writes them for TensorBoard.

    Its attribute ``monitor`` is a :class:`torchkoopman.flows.FlowMonitor`, driven by the trainer as
    that of :class:`KoopmanCallback` is: ``log_every`` counts ``trainer.global_step``, its state is
    in the trainer's checkpoints, and the process of rank zero looks.

    Example:
        >>> import lightning.pytorch as pl
        >>> from torchkoopman_lightning import FlowCallback
        >>> class Autoencoder(pl.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.encoder = torch.nn.Linear(4, 2)
        ...         self.decoder = torch.nn.Linear(2, 4)
        ...     def training_step(self, batch, index):
        ...         return (self.decoder(self.encoder(batch[0])) - batch[0]).square().mean()
        ...     def configure_optimizers(self):
        ...         return torch.optim.Adam(self.parameters())
        >>> callback = FlowCallback(
        ...     lambda m: tk.flows.Flow.of_autoencoder(m.encoder, m.decoder),
        ...     {"train": lambda m: m.encoder(train.inputs[:50])},
        ...     log_every=5,
        ... )
        >>> off = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
        >>> quiet = {"max_epochs": 1, "accelerator": "cpu", **dict.fromkeys(off, False)}
        >>> pl.Trainer(callbacks=[callback], **quiet).fit(Autoencoder(), train.loader(500))
        >>> callback.monitor.history.steps.tolist()  # and event files are in the folder "flow"
        [0, 5, 10]

    Args:
        flow: from the ``LightningModule`` to its flow.
        starts: name → latent states, or a function from the module to these.
        name: of the state in checkpoints, and of the folder; each of several callbacks needs one.
        folder: of the event files; None for ``name`` in ``trainer.default_root_dir``. An
            :class:`torchkoopman_tensorboard.EventFolder` has options of its own.
        log_every: steps from one look to the next.
        steps: applications of the flow at most.
        **options: ``tolerance``, ``merge`` and ``far`` of :meth:`torchkoopman.flows.FlowMonitor`.

    Raises:
        ValueError: when the training starts: see :meth:`torchkoopman.flows.FlowMonitor.attach`.
        TypeError: likewise.
        OSError: when the training starts: the folder cannot be written to.
    """

    monitor: FlowMonitor

    def __init__(
        self,
        flow: Callable[[Any], Flow],
        starts: Mapping[str, Tensor | Callable[[Any], Tensor]],
        *,
        name: str = "flow",
        folder: str | Path | EventFolder | None = None,
        log_every: int = 200,
        steps: int = 1000,
        **options: Any,
    ) -> None:
        monitor = FlowMonitor(flow, starts, log_every=log_every, steps=steps, **options)
        super().__init__(monitor, folder, name)

    @property
    def state_key(self) -> str:
        """Of the state in checkpoints."""
        return self._generate_state_key(name=self.name)
