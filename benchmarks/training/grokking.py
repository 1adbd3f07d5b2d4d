"""Does the spectrum of a network in training tell that it will generalise? ``make grokking``.

A residual perceptron learns addition modulo a prime from half of all unordered pairs. It knows
these by heart after a few hundred steps, and with weight decay it answers the others too, thousands
of steps later (Power et al. 2022, arXiv 2201.02177). Two controls never do: the same without weight
decay, and with it for labels drawn at random. What two fits see of the training pairs alone is held
against rivals that need no fit, by the rule of ``grokking_table.py``.

Settings were chosen on seeds 901 to 903, and on none of those that are reported.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchkoopman_tensorboard import EventFolder

import torchkoopman as tk
from benchmarks.training.grokking_table import (
    CONTROLS,
    PRIME,
    RIVALS,
    SUMS,
    TRUSTED,
    UNEXPLAINED,
    Checkpoint,
    Run,
    picture,
    table,
)

WIDTH, HIDDEN, BLOCKS = 64, 128, 3
STEPS, RATE, DECAY = 8000, 2e-3, 1.0
EVERY = 250
"""Steps from one checkpoint to the next."""
LAYERS = ["stem", f"blocks.{BLOCKS - 1}"]
HALFLIFE, WATCHED = 1500.0, 5
"""Rows of a halflife, and steps from one that is watched to the next: of a network two watched
steps old half is left."""


class Block(nn.Module):
    """``x + W₂ ReLU(W₁ x)``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """States of shape ``(pairs, WIDTH)``."""
        update: Tensor = self.second(torch.relu(self.first(x)))
        return x + update


class Adder(nn.Module):
    """The sum of two embeddings, residual blocks, and a linear head without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(PRIME, WIDTH)
        nn.init.normal_(self.embedding.weight, std=WIDTH**-0.5)
        self.stem = nn.Identity()
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.head = nn.Linear(WIDTH, PRIME, bias=False)

    def forward(self, pairs: Tensor) -> Tensor:
        """Integers of shape ``(pairs, 2)`` → logits of shape ``(pairs, PRIME)``."""
        logits: Tensor = self.head(self.blocks(self.stem(self.embedding(pairs).sum(1))))
        return logits

    def rank(self) -> float:
        """Participation ratio of the embedding's principal components: their effective number."""
        weight = self.embedding.weight.detach()
        power = torch.linalg.svdvals(weight - weight.mean(0)).square()
        return float(power.sum().square() / power.square().sum())

    def norm(self) -> float:
        """Euclidean norm of all parameters."""
        return float(sum(each.detach().square().sum() for each in self.parameters()) ** 0.5)


def pairs(kind: str, seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test part, pairs and labels of each.

    Unordered pairs, for a + b = b + a is true of any network that adds embeddings.
    """
    every = torch.combinations(torch.arange(PRIME), 2, with_replacement=True)
    generator = torch.Generator().manual_seed(seed)
    labels = every.sum(1) % PRIME
    if kind == "drawn labels":
        labels = torch.randint(PRIME, labels.shape, generator=generator)
    one, other = torch.randperm(len(every), generator=generator).tensor_split(2)
    return (every[one], labels[one]), (every[other], labels[other])


def trained(kind: str, seed: int, steps: int, folder: Path) -> Run:
    """Train a network, watched; or read the run that ``folder`` holds already."""
    name = f"{kind.replace(', ', '-').replace(' ', '-')}-{seed}-{steps}"
    path = folder / f"{name}.json"
    if path.exists():
        known = json.loads(path.read_text())
        known["checkpoints"] = [Checkpoint(**each) for each in known["checkpoints"]]
        return Run(**known)
    torch.set_num_threads(1)
    torch.manual_seed(1000 + seed)
    model, (train, test) = Adder(), pairs(kind, seed)
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=RATE,
        betas=(0.9, 0.98),
        weight_decay=0.0 if kind == CONTROLS[0] else DECAY,
    )
    monitors = {
        fit: monitor(fit, seed, EventFolder(folder / "events" / f"{name}-{fit}"))
        for fit in ("DMD", "EDMD")
    }
    found = []
    with monitors["DMD"].attach(model), monitors["EDMD"].attach(model):
        for step in range(1, steps + 1):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(train[0]), train[1])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            for each in monitors.values():
                each.step()
            if step % EVERY == 0:
                known = {**of_fits(monitors), **of_network(model, loss, test)}
                found.append(Checkpoint(step, known))
    run = Run(kind, seed, found)
    folder.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".part").write_text(json.dumps(asdict(run)))
    path.with_suffix(".part").replace(path)
    return run


def monitor(fit: str, seed: int, events: EventFolder) -> tk.TrainingMonitor:
    """A monitor that reads all training pairs of the steps it watches."""
    fitter: Any = tk.DMDFitter(halflife=HALFLIFE)
    if fit == "EDMD":
        generator = torch.Generator().manual_seed(2000 + seed)
        features = tk.RandomFeatures(2 * WIDTH)
        fitter = tk.EDMDFitter(features, halflife=HALFLIFE, generator=generator)
    return tk.TrainingMonitor(
        LAYERS, events, fitter, sample_every=WATCHED, log_every=EVERY, rows=PRIME**2
    )


def of_fits(monitors: dict[str, tk.TrainingMonitor]) -> dict[str, float]:
    """What the fits say of the training pairs."""
    found = {}
    for fit, monitor in monitors.items():
        surrogate = monitor.fitter.surrogate
        found[f"{fit}, {TRUSTED}"] = float(surrogate.spectrum().trusted().sum())
        found[f"{fit}, {UNEXPLAINED}"] = 1 - surrogate.record.r2[LAYERS[-1]]
    return found


@torch.no_grad()
def of_network(model: Adder, loss: Tensor, test: tuple[Tensor, Tensor]) -> dict[str, float]:
    """The rivals; the accuracy on test pairs, which nothing else sees, is one less the gap."""
    right = (model(test[0]).argmax(1) == test[1]).double().mean()
    values = (model.norm(), loss.item(), model.rank(), right.item())
    return dict(zip(RIVALS, values, strict=True))


def main() -> None:
    """Train what is not yet trained, two networks side by side, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--folder", type=Path, default=Path("runs/grokking"))
    parser.add_argument("--out", type=Path, default=Path("runs/figures"))
    chosen = parser.parse_args()
    asked = list(product((SUMS, *CONTROLS), chosen.seeds))
    with ProcessPoolExecutor(2) as pool:
        started = [pool.submit(trained, *each, chosen.steps, chosen.folder) for each in asked]
        runs = [each.result() for each in started]
    print(table(runs))
    picture(runs, chosen.out / "grokking.png")
    print(chosen.out / "grokking.png")


if __name__ == "__main__":
    main()
