"""The bench's networks and surrogates: made once for each task and seed, then read from files."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from s1 import FITTER_SEED, TASKS, Task, watch
from safetensors.torch import load_file, save_file
from torch import nn

import torchkoopman as tk
from torchkoopman.fitting.baselines import Baselines
from torchkoopman.observe.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from networks import ResidualMLP

    from torchkoopman.datasets import Split

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""Where Linux tells a process's highest memory, and forgets it."""
SURROGATES = ("EDMD", "autoencoder")


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
    record: dict[str, dict[str, float | None]]
    """Method → processor seconds of its fit, with the passes it watches, and peak memory above
    what the network and its data take, in MiB (null where the system does not tell)."""


def task_named(name: str, quick: bool) -> Task:
    """A task of S1; the quick bench trains less."""
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
        method: tk.load_surrogate(place / f"{method}.safetensors") for method in SURROGATES
    }
    maps = {}
    for path in sorted(place.glob("*.map")):
        tensors = load_file(path)
        maps[path.stem] = _linear(tensors["weight"], tensors["bias"])
    record = json.loads((place / "record.json").read_text())
    return Fitted(task, data, model.eval(), surrogates, maps, record)


def _make(task: Task, data: Split, seed: int, place: Path) -> None:
    """Train and fit, and give the folder its name only when all is in it."""
    model = task.trained(data.train, seed)
    loader = task.stream(data.train, seed)
    methods: dict[str, Callable[[], tk.Surrogate]] = {
        "EDMD": lambda: tk.fit(model, loader, "blocks.*", method=_edmd(seed), progress=False),
        "autoencoder": lambda: (
            watch(model, loader, task.fitter(model, seed)).train(task.steps).surrogate
        ),
    }
    part = place.with_name(f"{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(model.state_dict(), part / "network.safetensors")
    record: dict[str, Any] = {}
    baselines = Baselines()
    ends = Watch(model, list(task.span))
    _, record["ridge map"] = measured(lambda: ends.stream(loader, baselines))
    for name, (weight, bias) in baselines.maps(task.autoencoder["latent"]).items():
        if name != "skip":
            save_file({"weight": weight.float(), "bias": bias.float()}, part / f"{name}.map")
    for name, method in methods.items():
        surrogate, record[name] = measured(method)
        tk.save_surrogate(surrogate, part / f"{name}.safetensors")
    (part / "record.json").write_text(json.dumps(record, indent=1))
    part.replace(place)


def measured(method: Callable[[], Any]) -> tuple[Any, dict[str, float | None]]:
    """What a function gives, its processor seconds, and the memory it took at its peak, in MiB.

    On one thread these are the seconds it takes on a core of its own.
    """
    before = _memory()
    start = time.process_time()
    result = method()
    seconds, after = time.process_time() - start, _memory(reset=False)
    known = before is not None and after is not None
    return result, {"seconds": seconds, "MiB": after - before if known else None}  # type: ignore[operator]


def _memory(reset: bool = True) -> float | None:
    """The process's highest memory since the last reset, in MiB; None but on Linux."""
    if not RESET.exists():
        return None
    if reset:
        RESET.write_text("5")
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _edmd(seed: int) -> tk.EDMDFitter:
    return tk.EDMDFitter(generator=torch.Generator().manual_seed(FITTER_SEED + seed))


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
    return linear
