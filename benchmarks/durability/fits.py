"""Fits with checkpoints, in one process or as one of several, and whether two ended alike."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import torchkoopman as tk

ROWS, BATCH, EVERY = 4000, 50, 300


OPTIONS: dict[str, dict[str, Any]] = {
    "dmd": {"method": "dmd"},
    "edmd": {"method": "edmd", "observables": tk.RandomFeatures(40), "calibration": 700},
    "edmd halflife": {
        "method": "edmd",
        "observables": tk.RandomFeatures(40),
        "calibration": 700,
        "halflife": 900.0,
    },
    "autoencoder": {
        "latent": 8,
        "hidden": [16],
        "steps": 150,
        "batch": 32,
        "calibration": 700,
        "replay_bytes": 300_000,
    },
}


def network() -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(8, 8), nn.Tanh()]
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model


def loader() -> DataLoader[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(ROWS, 8, generator=generator)
    labels = torch.randint(0, 3, (ROWS,), generator=generator)
    data = TensorDataset(inputs, labels)
    if dist.is_initialized():
        return DataLoader(data, BATCH, sampler=DistributedSampler(data, seed=3))
    return DataLoader(data, BATCH, shuffle=True, generator=torch.Generator().manual_seed(3))


def fitted(kind: str, checkpoint: Path, result: Path) -> None:
    """One call of ``tk.fit``; what came of it goes into a file, tensor by tensor."""
    surrogate = tk.fit(
        network(),
        loader(),
        ["0", "2", "4", "6"],
        checkpoint=checkpoint,
        every=EVERY,
        progress=False,
        **OPTIONS[kind],
    )
    assert surrogate.statistics is not None
    found = dict(surrogate.state_dict()) | surrogate.statistics.tensors()
    if surrogate.evidence is not None:
        found |= {"start": surrogate.evidence.start, "end": surrogate.evidence.end}
    torch.save({"tensors": found, "record": repr(surrogate.record)}, result)


def same(one: Path, other: Path) -> bool:
    mine, theirs = (torch.load(path, weights_only=True) for path in (one, other))
    tensors = mine["tensors"].keys() == theirs["tensors"].keys() and all(
        torch.equal(tensor, theirs["tensors"][name]) for name, tensor in mine["tensors"].items()
    )
    return tensors and mine["record"] == theirs["record"]
