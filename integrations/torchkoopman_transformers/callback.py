"""A callback of transformers' Trainer that follows the spectrum of layers through a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchkoopman import TrainingMonitor
from torchkoopman_transformers.driving import MonitorCallback

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torchkoopman_tensorboard import EventFolder
    from transformers.training_args import TrainingArguments


class KoopmanTrainerCallback(MonitorCallback):
    """Follows the spectrum of layers through a training, and writes it for TensorBoard.

    Its attribute ``monitor`` is a :class:`torchkoopman.TrainingMonitor`, driven by the Trainer. Use
    it as a context around the training: the Trainer has no event for exceptions, after which hooks
    would stay on the model.

    Steps are those of the optimiser; of a step that is watched all micro-batches are read. Padding
    is left out by the ``attention_mask`` that the model is called with. The state goes into each
    checkpoint, as ``koopman.safetensors``, and is read again when a training is resumed from it. Of
    many processes the one of rank zero watches its shard of the data; nothing is communicated.

    Example:
        >>> import transformers
        >>> from torchkoopman_transformers import KoopmanTrainerCallback
        >>> sizes = {"vocab_size": 50, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
        >>> gpt = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
        >>> texts = [{"input_ids": torch.arange(16), "labels": torch.arange(16)}] * 80
        >>> arguments = transformers.TrainingArguments(
        ...     "out", max_steps=10, report_to="none", save_strategy="no", use_cpu=True
        ... )
        >>> trainer = transformers.Trainer(gpt, arguments, train_dataset=texts)
        >>> with KoopmanTrainerCallback("transformer.h.*", sample_every=1, log_every=5) as callback:
        ...     trainer.add_callback(callback)
        ...     output = trainer.train()
        {'train_runtime': ...}
        >>> callback.monitor.tracks.steps  # and event files are in the folder "out/koopman"
        (5.0, 10.0)

    Args:
        layers: a name in the model, a wildcard such as ``"model.layers.*"``, or several.
        fitter: what learns; None for that of ``TrainingMonitor``.
        name: of the file in checkpoints, and of the folder; give each of several callbacks its own.
        folder: of the event files; None for ``name`` in ``args.output_dir``. A training that begins
            anew hides earlier points in it. An :class:`torchkoopman_tensorboard.EventFolder` has
            options of its own.
        resume_from: folder of the checkpoint that the training is resumed from, if that is not
            ``checkpoint-<step>`` in ``args.output_dir``.
        sample_every: steps from one that is watched to the next.
        log_every: steps from one spectrum to the next.
        rows: of each forward pass at most.
        **reading: ``layout``, ``output``, ``attention_mask`` and ``gather`` of
            :func:`torchkoopman.attach`.

    Raises:
        ValueError: when the training begins: a layer that does not exist or is compiled,
            ``torch_compile``, several devices in one process (``nn.DataParallel``), or a checkpoint
            of other layers.
        OSError: when the training begins: the folder cannot be written to.
    """

    monitor: TrainingMonitor

    def __init__(
        self,
        layers: str | Sequence[str],
        fitter: Any = None,
        *,
        name: str = "koopman",
        folder: str | Path | EventFolder | None = None,
        resume_from: str | Path | None = None,
        sample_every: int = 20,
        log_every: int = 200,
        rows: int = 64,
        **reading: Any,
    ) -> None:
        if "log" in reading:
            raise TypeError(
                f"KoopmanTrainerCallback got log={reading['log']!r}, but writes event files "
                "itself, into folder=. For another kind of log use torchkoopman.TrainingMonitor."
            )
        monitor = TrainingMonitor(
            layers,
            fitter=fitter,
            sample_every=sample_every,
            log_every=log_every,
            rows=rows,
            **reading,
        )
        super().__init__(monitor, name, folder, resume_from)

    def _refuse(self, args: TrainingArguments) -> None:
        refuse(args)


def refuse(args: TrainingArguments) -> None:
    """Refuse ways to train in which hooks see nothing, or parts.

    Raises:
        ValueError: says which, and the way out.
    """
    if args.torch_compile:
        raise ValueError(
            "KoopmanTrainerCallback cannot see into a compiled model: hooks in compiled code never "
            "fire. Train with torch_compile=False."
        )
    if args.n_gpu > 1:
        raise ValueError(
            f"the Trainer would run {args.n_gpu} devices in one process by nn.DataParallel, whose "
            "replicas share the hooks, so that each pass would be mixed with others. Start it with "
            "one process a device, `torchrun --nproc-per-node=2 script.py`, or show it one device, "
            "CUDA_VISIBLE_DEVICES=0."
        )
