"""The bench's networks and surrogates: made once for each task and seed, then read from files."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import torchkoopman as tk
from benchmarks.tasks import FITTER_SEED, TASKS, Task, watch
from torchkoopman.observe.watch import Watch
from torchkoopman.running.baselines import Baselines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.networks import ResidualMLP
    from torchkoopman.datasets import Split

MAPS, SURROGATES = "ridge map", ("EDMD", "autoencoder")


@dataclass(frozen=True)
class Fitted:
    """A trained network and what was fitted to its blocks."""

    task: Task
    data: Split
    model: ResidualMLP
    surrogates: dict[str, tk.Surrogate]
    """``"EDMD"`` and ``"autoencoder"``."""
    maps: dict[str, nn.Linear]
    """``"ridge map"`` and ``"PCA + linear"``, from the first block's output to the last's."""
    seconds: dict[str, float]
    """Method → processor seconds of its fit, with the passes it watches. On one thread these are
    the seconds it takes on a core of its own."""


def task_named(name: str, quick: bool) -> Task:
    """A task of the Koopman-autoencoder paper; the quick bench trains less."""
    task = TASKS[name]
    return replace(task, training={**task.training, "epochs": 200}) if quick else task


def fitted(name: str, seed: int, quick: bool, folder: Path) -> Fitted:
    """Network and surrogates of a task and seed: read from ``folder``, or made and put there."""
    task = task_named(name, quick)
    data, place = task.data(seed), folder / f"{name}-{seed}"
    if not place.is_dir():
        _make(task, data, seed, place)
    model = task.fresh()
    model.load_state_dict(load_file(place / "network.safetensors"))
    surrogates = {
        method: tk.Surrogate.load(place / f"{method}.safetensors") for method in SURROGATES
    }
    maps = {}
    for path in sorted(place.glob("*.map")):
        tensors = load_file(path)
        maps[path.stem] = _linear(tensors["weight"], tensors["bias"])
    seconds = json.loads((place / "seconds.json").read_text())
    return Fitted(task, data, model.eval(), surrogates, maps, seconds)


def _make(task: Task, data: Split, seed: int, place: Path) -> None:
    """Train and fit, and give the folder its name only when all is in it."""
    part = place.with_name(f"{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model = task.trained(data.train, seed)
    save_file(model.state_dict(), part / "network.safetensors")
    seconds = {}
    for method in (MAPS, *SURROGATES):
        start = time.process_time()
        result = fit(task, model, data, seed, method)
        seconds[method] = time.process_time() - start
        if isinstance(result, tk.Surrogate):
            result.save(part / f"{method}.safetensors")
        else:
            for name, (weight, bias) in result.maps(task.autoencoder["latent"]).items():
                if name != "skip":
                    tensors = {"weight": weight.float(), "bias": bias.float()}
                    save_file(tensors, part / f"{name}.map")
    (part / "seconds.json").write_text(json.dumps(seconds, indent=1))
    part.replace(place)


def fit(
    task: Task, model: ResidualMLP, data: Split, seed: int, method: str
) -> tk.Surrogate | Baselines:
    """One method's fit of a network's blocks; the affine maps come from one pass."""
    loader = task.stream(data.train, seed)
    if method == "autoencoder":
        return watch(model, loader, task.fitter(model, seed)).train(task.steps).surrogate
    if method == "EDMD":
        generator = torch.Generator().manual_seed(FITTER_SEED + seed)
        fitter = tk.EDMDFitter(generator=generator)
        return tk.fit(model, loader, "blocks.*", method=fitter, progress=False)
    baselines = Baselines()
    Watch(model, list(task.span)).stream(loader, baselines)
    return baselines


def fitting(name: str, method: str, quick: bool) -> Callable[[], object]:
    """A fit on the first seed's data to be run, for its memory: with few steps after the stream."""
    task = replace(task_named(name, quick), steps=1)
    data, model = task.data(0), task.fresh().eval()
    return partial(fit, task, model, data, 0, method)


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
    return linear
