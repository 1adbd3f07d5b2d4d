"""Trainers that compile the model: what nobody can read is said within the first step."""

import importlib.util
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from torchkoopman.observe.probe import Probe
from torchkoopman.observe.probes import attach

LAYERS = ["0", "2"]


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs {name}")


def matching(caught: list[warnings.WarningMessage], pattern: str) -> int:
    return sum(re.search(pattern, str(each.message)) is not None for each in caught)


def body() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))


@pytest.mark.slow
@needs("accelerate")
@needs("transformers")
@pytest.mark.parametrize("before", [True, False])
def test_transformers_trainer_with_torch_compile_is_told_in_the_first_step(
    tmp_path: Path, before: bool
) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body()

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            out = self.body(x)
            return {"loss": nn.functional.cross_entropy(out, labels), "logits": out}

    class Watching(TrainerCallback):  # type: ignore[misc]
        probe: Probe | None = None
        told: int | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if self.probe is None:
                self.probe = attach(model, [f"body.{layer}" for layer in LAYERS])

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if self.told is None:
                self.told = matching(caught, "being compiled|compiled version of the model")

    model, watching = Model(), Watching()
    if before:
        watching.probe = attach(model, [f"body.{layer}" for layer in LAYERS])
    data = [{"x": torch.randn(4), "labels": torch.tensor(k % 4)} for k in range(16)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=3,
        per_device_train_batch_size=4,
        torch_compile=True,
        torch_compile_backend="eager",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        dataloader_pin_memory=False,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Trainer(model, arguments, train_dataset=data, callbacks=[watching]).train()
    assert watching.told
    assert watching.probe is not None
    report = watching.probe.report()
    watching.probe.detach()
    assert report.trajectories == 0
    assert report.compiled_calls == 3
    torch._dynamo.reset()


@pytest.mark.slow
@needs("lightning")
def test_lightnings_fit_of_a_compiled_module_is_told_in_the_first_step(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lightning

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.body = body()

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)  # type: ignore[no-any-return]

        def training_step(self, batch: Any, index: int) -> Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    class Watching(lightning.Callback):  # type: ignore[misc]
        told: int | None = None

        def on_train_batch_end(self, *given: Any) -> None:
            if self.told is None:
                self.told = matching(caught, "being compiled")

    module, watching = Module(), Watching()
    layers = [f"body.{layer}" for layer in LAYERS]
    loader = DataLoader(TensorDataset(torch.randn(12, 4), torch.arange(12) % 4), batch_size=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        probe = attach(module, layers)
        trainer = lightning.Trainer(
            default_root_dir=tmp_path,
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[watching],
        )
        trainer.fit(torch.compile(module, backend="eager"), loader)
        report = probe.report()
        probe.detach()
    assert watching.told
    assert report.trajectories == 0
    assert report.compiled_calls == 3
    with pytest.raises(ValueError, match=r"Lightning did so for fit.*to_uncompiled"):
        attach(module, layers)
    from lightning.pytorch.utilities.compile import to_uncompiled

    to_uncompiled(module)
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the compiled version is still held
        probe = attach(module, layers)
    module.train(False)
    module(torch.randn(2, 4))
    assert probe.report().trajectories == 1
    probe.detach()
