"""Does the spectrum of a network in training tell that it will generalise? ``make grokking``.

A residual perceptron learns addition modulo a prime from half of all unordered pairs. It knows
these by heart after a few hundred steps, and with weight decay it answers the others too, thousands
of steps later (Power et al. 2022, arXiv 2201.02177). Two controls never do: the same without weight
decay, and with it for labels drawn at random. What two fits see of the training pairs alone is held
against rivals that need no fit, by one rule: something tells of generalisation at the first step
from which on it is, for a while, outside of everything that the controls ever show.

Settings were chosen on seeds 901 to 903, and on none of those that are reported.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from bench_tables import markdown
from torch import Tensor, nn
from torchkoopman_tensorboard import EventFolder

import torchkoopman as tk

if TYPE_CHECKING:
    from collections.abc import Sequence

PRIME, WIDTH, HIDDEN, BLOCKS = 53, 64, 128, 3
STEPS, RATE, DECAY = 8000, 2e-3, 1.0
EVERY = 250
"""Steps from one checkpoint to the next."""
SETTLED = 1000
"""Step from which on values count; by then every network knows its training pairs by heart."""
STAYS = 4
"""Checkpoints in a row that must lie outside of what the controls show: a thousand steps."""
LAYERS = ["stem", f"blocks.{BLOCKS - 1}"]
HALFLIFE, WATCHED = 1500.0, 5
"""Rows of a halflife, and steps from one that is watched to the next: of a network two watched
steps old half is left."""
TRUSTED, UNEXPLAINED = "trusted modes", "unexplained variance"
RIVALS = ("weight norm", "training loss", "rank of the embedding", "test accuracy")
NAMES = (*(f"{fit}, {what}" for fit, what in product(("DMD", "EDMD"), (TRUSTED, UNEXPLAINED))),)
SUMS, CONTROLS = "sums", ("sums, no weight decay", "drawn labels")


@dataclass
class Checkpoint:
    """What is known of a network at one step of its training."""

    step: int
    values: dict[str, float]
    """Name, one of ``NAMES`` or ``RIVALS`` → its value."""


@dataclass
class Run:
    """One training."""

    kind: str
    seed: int
    checkpoints: list[Checkpoint]

    def series(self, name: str) -> list[float]:
        """The values of one quantity from step ``SETTLED`` on."""
        return [each.values[name] for each in self.checkpoints if each.step >= SETTLED]

    @property
    def steps(self) -> list[int]:
        """The steps of these values."""
        return [each.step for each in self.checkpoints if each.step >= SETTLED]


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
    name = f"{kind.replace(', ', '-').replace(' ', '-')}-{seed}"
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
        found[f"{fit}, {UNEXPLAINED}"] = surrogate.record.fvu[LAYERS[-1]]
    return found


@torch.no_grad()
def of_network(model: Adder, loss: Tensor, test: tuple[Tensor, Tensor]) -> dict[str, float]:
    """The rivals; the accuracy on test pairs, which nothing else sees, is one less the gap."""
    right = (model(test[0]).argmax(1) == test[1]).double().mean()
    values = (model.norm(), loss.item(), model.rank(), right.item())
    return dict(zip(RIVALS, values, strict=True))


def tells(run: Run, name: str, controls: Sequence[Run]) -> int | None:
    """The step at which a quantity has left what the controls show for ``STAYS`` checkpoints."""
    shown = [value for control in controls for value in control.series(name)]
    if not shown:
        return None
    outside = [not min(shown) <= value <= max(shown) for value in run.series(name)]
    for end in range(STAYS, len(outside) + 1):
        if all(outside[end - STAYS : end]):
            return run.steps[end - 1]
    return None


def generalises(run: Run) -> int | None:
    """The first step at which half of the test pairs are right."""
    found = zip(run.steps, run.series("test accuracy"), strict=True)
    return next((step for step, right in found if right >= 0.5), None)


def table(runs: Sequence[Run]) -> str:
    """For each quantity: how long before half of the test pairs it tells, and false alarms."""
    learners = [run for run in runs if run.kind == SUMS]
    controls = [run for run in runs if run.kind in CONTROLS]
    half = [generalises(run) for run in learners]
    kinds = [kind for kind in (SUMS, *CONTROLS) if any(run.kind == kind for run in runs)]
    rows = []
    for name in (*NAMES, *RIVALS):
        told = [tells(run, name, controls) for run in learners]
        leads = [
            "never" if at is None else "—" if then is None else f"{then - at:+d}"
            for at, then in zip(told, half, strict=True)
        ]
        alarms = sum(
            tells(run, name, [other for other in controls if other is not run]) is not None
            for run in controls
        )
        ends = [median(run.series(name)[-1] for run in runs if run.kind == kind) for kind in kinds]
        rows.append([name, *leads, f"{alarms} of {len(controls)}", *(f"{end:.3g}" for end in ends)])
    head = [
        "steps ahead of half the test pairs",
        *(f"seed {run.seed}" for run in learners),
        "false alarms",
        *(f"at the end, {kind}" for kind in kinds),
    ]
    reached = ", ".join("never" if step is None else str(step) for step in half)
    best = max(max(control.series("test accuracy")) for control in controls)
    return (
        f"{markdown(head, rows)}\n\nHalf of the test pairs are right at step {reached}; no control "
        f"has more than {100 * best:.1f} % at any time (chance {100 / PRIME:.1f} %)."
    )


def picture(runs: Sequence[Run], path: Path) -> None:
    """Each quantity through training, one line a network."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = ("test accuracy", *NAMES[:2], "rank of the embedding", *NAMES[2:])
    colours = dict(zip((SUMS, *CONTROLS), ("#d9762b", "#1b5e8c", "#9a9a9a"), strict=True))
    figure, axes = plt.subplots(2, 3, figsize=(11.5, 6), layout="constrained", sharex=True)
    for place, name in zip(axes.flat, shown, strict=True):
        for run in runs:
            steps = [each.step for each in run.checkpoints]
            values = [each.values[name] for each in run.checkpoints]
            first = run.seed == min(each.seed for each in runs)
            label = run.kind if first else None
            place.plot(steps, values, color=colours[run.kind], linewidth=1.2, label=label)
        place.set_title(name, fontsize=10)
        place.grid(alpha=0.25)
    for place in axes[-1]:
        place.set_xlabel("optimiser step")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


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
