"""Real trainings with callbacks: whole ones, and ones that break off and are resumed.

``python -m tests.integrations.trainings FOLDER --steps 200`` runs Lightning and transformers on one
process and on two (DDP, gloo), and kills some with SIGKILL, in forks of one process. It prints what
it finds, and leaves it in ``FOLDER/found.json`` for the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import logging
import os
import signal
import socket
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.data.provider import RunTagFilter
from torch import Tensor, nn

from torchkoopman.observe.hooks import Hook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAMPLING: dict[str, Any] = {"sample_every": 2, "log_every": 5, "rows": 24}
BATCH = 8
Points = dict[str, list[tuple[int, Any]]]


def points(folder: Path) -> Points:
    """Tag → steps and values of its points, scalars and tensors, as a dashboard gets them."""
    sizes = dict.fromkeys(("koopman", "scalars", "text"), 1000)
    multiplexer = EventMultiplexer(tensor_size_guidance=sizes)
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    found: Points = {}
    kinds = (("koopman", "tensors", "numpy"), ("text", "tensors", "numpy"))
    for plugin, kind, value in (*kinds, ("scalars", "scalars", "value")):
        read = getattr(provider, f"read_{kind}")
        told = {"experiment_id": "", "plugin_name": plugin, "run_tag_filter": RunTagFilter()}
        for series in read(RequestContext(), downsample=1000, **told).values():
            for tag, each in series.items():
                values = [np.asarray(getattr(point, value)).tolist() for point in each]
                steps = [point.step for point in each]
                found[tag] = list(zip(steps, values, strict=True))
    return found


def same(one: Points, other: Points) -> bool:
    """Whether two trainings have left the same points, to the last bit."""
    return bool(one) and repr(sorted(one.items())) == repr(sorted(other.items()))


def hooks(model: nn.Module) -> int:
    """How many hooks of ours are on a model."""
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    found = (hook for m in model.modules() for kind in kinds for hook in getattr(m, kind).values())
    return sum(isinstance(hook, Hook) for hook in found)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Within it the trainers' own warnings do not count, and ours do."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
        warnings.simplefilter("ignore")
        for ours in ("the monitor", "the training", "there is no spectrum", "the spectrum of"):
            warnings.filterwarnings("error", f".*{ours}", RuntimeWarning)
        with contextlib.redirect_stderr(nowhere):
            yield


class BrokenOffError(Exception):
    """What a training ends with in the middle; hooks of ours are on the model then."""


def at(step: int, when: int | None, killed: bool, model: nn.Module) -> None:
    """Break off, if it is the step to do so."""
    if when is not None and step >= when:
        watches = os.environ.get("RANK", "0") == "0"
        assert (hooks(model) > 0) == watches, "else nothing is shown by none being left"
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        raise BrokenOffError


def late(steps: int) -> int:
    """A step that is not logged, behind the last checkpoint, and before one that is watched."""
    return steps * 7 // 8 // 2 * 2


def lightning_fit(
    root: Path,
    steps: int = 40,
    *,
    resume: bool = False,
    breaks: int | None = None,
    killed: bool = False,
    processes: int = 1,
    callback: Any = None,
    module: Any = None,
    compiled: bool = False,
    **options: Any,
) -> tuple[Any, Any]:
    """A training by Lightning with two epochs; returns the callback and the module."""
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint
    from torch.utils.data import DataLoader, TensorDataset
    from torchkoopman_lightning import KoopmanCallback

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            layers = [layer for _ in range(3) for layer in (nn.Linear(8, 8), nn.Tanh())]
            self.body, self.head = nn.Sequential(*layers), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x))  # type: ignore[no-any-return]

        def training_step(self, batch: Any, index: int) -> Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch: Any, index: int) -> None:
            self(batch[0])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    class Breaking(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *given: Any) -> None:
            at(trainer.global_step, breaks, killed, module)

    generator = torch.Generator().manual_seed(1)
    accumulate = options.get("accumulate_grad_batches", 1)
    x = torch.randn(steps // 2 * BATCH * processes * accumulate, 8, generator=generator)
    x = x[int(os.environ.get("RANK", 0)) :: processes]  # the shard of a process, in one order
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=BATCH)
    callback = callback or KoopmanCallback(["body.1", "body.3", "body.5"], **SAMPLING)
    module = module or Module()
    saving = ModelCheckpoint(root / "checkpoints", filename="{step}", save_top_k=-1)
    if processes > 1:
        options["strategy"] = "ddp"
    with quietly():
        trainer = lightning.Trainer(
            default_root_dir=root,
            max_steps=steps,
            accelerator="cpu",
            devices=processes,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=2,
            use_distributed_sampler=False,
            callbacks=[saving, callback, Breaking()],
            **options,
        )
        model = torch.compile(module, backend="eager") if compiled else module
        path = str(root / "checkpoints" / f"step={steps // 2}.ckpt") if resume else None
        with contextlib.suppress(BrokenOffError):
            trainer.fit(model, loader, loader, ckpt_path=path)
    return callback, module


def transformers_fit(
    root: Path,
    steps: int = 40,
    *,
    resume: bool = False,
    breaks: int | None = None,
    killed: bool = False,
    processes: int = 1,
    callback: Any = None,
    prepared: Callable[[Any], object] = lambda trainer: None,
    **options: Any,
) -> tuple[Any, Any]:
    """A training of a small BERT by transformers' Trainer; returns the callback and the model."""
    from torchkoopman_transformers import KoopmanTrainerCallback
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    generator = torch.Generator().manual_seed(1)
    data = []
    for row in range(max(64, BATCH * processes * 4)):
        words = torch.randint(1, 50, (12,), generator=generator)
        mask = torch.arange(12) < 6 + row % 6
        data.append(
            {"input_ids": words, "attention_mask": mask.long(), "labels": (words[0] > 25).long()}
        )
    arguments: dict[str, Any] = {
        "output_dir": str(root),
        "max_steps": steps,
        "per_device_train_batch_size": BATCH,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "steps",
        "save_steps": steps // 2,
        "logging_strategy": "no",
        "dataloader_pin_memory": False,
        **({"ddp_backend": "gloo"} if processes > 1 else {}),
    }
    callback = callback or KoopmanTrainerCallback("bert.encoder.layer.*", **SAMPLING)
    with quietly(), contextlib.redirect_stdout(None), callback:
        trainer = Trainer(
            model,
            TrainingArguments(**{**arguments, **options}),
            train_dataset=data,
            callbacks=[callback],
        )
        plain = trainer.training_step

        def step(*given: Any, **named: Any) -> Tensor:
            at(trainer.state.global_step, breaks, killed, model)
            return plain(*given, **named)

        trainer.training_step = step  # type: ignore[method-assign]
        prepared(trainer)
        path = str(root / f"checkpoint-{steps // 2}") if resume else None
        with contextlib.suppress(BrokenOffError):
            trainer.train(resume_from_checkpoint=path)
    return callback, model


FITS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "lightning": lightning_fit,
    "transformers": transformers_fit,
}


def broken_and_resumed(name: str, root: Path, steps: int, processes: int) -> dict[str, Any]:
    """In one of the processes: a whole training, and one that breaks off and is resumed."""
    fit, options = FITS[name], {"processes": processes}
    left = []
    broken, resumed = {"breaks": late(steps)}, {"resume": True}
    for folder, more in (("whole", {}), ("broken", broken), ("broken", resumed)):
        _, model = fit(root / folder, steps, **options, **more)
        left.append(hooks(model))
        if processes > 1:
            torch.distributed.barrier()
    one, other = points(root / "whole/koopman"), points(root / "broken/koopman")
    return {"hooks": left, "same": same(one, other), "steps": steps_of(one)}


def killed_and_resumed(name: str, root: Path, steps: int) -> dict[str, Any]:
    """A training killed without warning, and resumed in this process."""
    fit = FITS[name]
    died = forked(lambda: fit(root / "killed", steps, breaks=late(steps), killed=True))
    fit(root / "whole", steps)
    before = steps_of(points(root / "killed/koopman"))
    fit(root / "killed", steps, resume=True)
    whole, resumed = points(root / "whole/koopman"), points(root / "killed/koopman")
    return {"died": died, "same": same(whole, resumed), "before": before, "steps": steps_of(whole)}


def steps_of(found: Points) -> list[int]:
    """The steps that all spectra are of."""
    (spectrum,) = (each for tag, each in found.items() if "/spectrum.v" in tag)
    return [step for step, _ in spectrum]


def forked(work: Callable[[], object]) -> int:
    """The exit code of a child that does the work."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def in_group(size: int, root: Path, work: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
    """What each process of a group finds; they are started as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
    told |= {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "GROUP_RANK": 0}
    root.mkdir(parents=True)

    def run(rank: int) -> None:
        faulthandler.dump_traceback_later(120, exit=True)  # say where it hangs, and end
        mine = {**told, "RANK": rank, "LOCAL_RANK": rank} if size > 1 else {}
        os.environ.update({name: str(value) for name, value in mine.items()})
        (root / f"{rank}.json").write_text(json.dumps(work()))

    children = []
    for rank in range(size):
        child = os.fork()
        if not child:
            os.setpgid(0, 0)
            os._exit(forked(lambda rank=rank: run(rank)))  # type: ignore[misc]
        children.append(child)
    codes: dict[int, int] = {}
    while len(codes) < size:
        child, status = os.wait()
        codes[child] = os.waitstatus_to_exitcode(status)
        if codes[child] and len(codes) == 1:  # the others would wait for it
            for other in set(children) - {child}:
                os.killpg(other, signal.SIGKILL)
    if any(codes.values()):
        return [{"exit codes": [codes[child] for child in children]}]
    return [json.loads((root / f"{rank}.json").read_text()) for rank in range(size)]


def main() -> None:
    """All of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()
    import lightning  # noqa: F401, once for all forks
    import transformers.trainer  # noqa: F401

    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name in FITS:
        for size in (1, 2):
            case = f"{name}, {size} processes"
            root = given.folder / f"{name}{size}"
            found[case] = in_group(
                size,
                root,
                lambda n=name, r=root, k=size: broken_and_resumed(n, r, given.steps, k),  # type: ignore[misc]
            )
        root = given.folder / f"{name}-killed"
        found[f"{name}, killed"] = in_group(
            1,
            root,
            lambda n=name, r=root: killed_and_resumed(n, r, given.steps),  # type: ignore[misc]
        )
    for case, results in found.items():
        print(f"{case}: {results}")
    (given.folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
