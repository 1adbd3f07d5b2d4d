"""A callback of transformers' Trainer that follows the attractors of a model's flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchkoopman.flows import FlowMonitor
from torchkoopman_transformers.driving import MonitorCallback

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor
    from torchkoopman_tensorboard import EventFolder

    from torchkoopman.flows import Flow


class FlowTrainerCallback(MonitorCallback):
    """Follows the attractors of a model's flow through a training, and writes them for TensorBoard.

    Its attribute ``monitor`` is a :class:`torchkoopman.flows.FlowMonitor`, driven by the Trainer as
    that of :class:`KoopmanTrainerCallback` is, within ``with`` too; its state is in each checkpoint
    as ``<name>.safetensors``.

    Example:
        >>> import transformers
        >>> from torchkoopman_transformers import FlowTrainerCallback
        >>> sizes = {"image_size": 4, "patch_size": 2, "num_channels": 1, "hidden_size": 8}
        >>> heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        >>> sides = {f"decoder_{k}": v for k, v in {"hidden_size": 8, **heads}.items()}
        >>> mae = transformers.ViTMAEForPreTraining(
        ...     transformers.ViTMAEConfig(**sizes, **heads, **sides, mask_ratio=0.5)
        ... )
        >>> noise = torch.rand(4)  # one mask for all images
        >>> order = noise.argsort().argsort()
        >>> encode = lambda x: mae.vit(x, noise=noise.expand(len(x), -1)).last_hidden_state
        >>> decode = lambda z: mae.unpatchify(mae.decoder(z, order.expand(len(z), -1)).logits)
        >>> images = [{"pixel_values": torch.rand(1, 4, 4)} for _ in range(40)]
        >>> arguments = transformers.TrainingArguments(
        ...     "out", max_steps=4, report_to="none", save_strategy="no", use_cpu=True
        ... )
        >>> trainer = transformers.Trainer(mae, arguments, train_dataset=images)
        >>> states = torch.randn(5, 3, 8)
        >>> field = lambda m: tk.flows.Flow.of_autoencoder(encode, decode)
        >>> with FlowTrainerCallback(field, {"noise": states}, log_every=2) as callback:
        ...     trainer.add_callback(callback)
        ...     output = trainer.train()
        {'train_runtime': ...}
        >>> callback.monitor.history.steps.tolist()  # and event files are in the folder "out/flow"
        [0, 2, 4]

    Args:
        flow: from the model to its flow.
        starts: name → latent states, or a function from the model to these.
        name: of the file in checkpoints, and of the folder; give each of several callbacks its own.
        folder: of the event files; None for ``name`` in ``args.output_dir``. An
            :class:`torchkoopman_tensorboard.EventFolder` has options of its own.
        resume_from: folder of the checkpoint that the training is resumed from, if that is not
            ``checkpoint-<step>`` in ``args.output_dir``.
        log_every: steps from one look to the next.
        steps: applications of the flow at most.
        **options: ``tolerance``, ``merge`` and ``far`` of :meth:`torchkoopman.flows.FlowMonitor`.

    Raises:
        ValueError: when the training begins: see :meth:`torchkoopman.flows.FlowMonitor.attach`.
        TypeError: likewise.
        OSError: when the training begins: the folder cannot be written to.
    """

    monitor: FlowMonitor

    def __init__(
        self,
        flow: Callable[[Any], Flow],
        starts: Mapping[str, Tensor | Callable[[Any], Tensor]],
        *,
        name: str = "flow",
        folder: str | Path | EventFolder | None = None,
        resume_from: str | Path | None = None,
        log_every: int = 200,
        steps: int = 1000,
        **options: Any,
    ) -> None:
        monitor = FlowMonitor(flow, starts, log_every=log_every, steps=steps, **options)
        super().__init__(monitor, name, folder, resume_from)
