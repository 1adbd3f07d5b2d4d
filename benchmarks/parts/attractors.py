"""Attractors through the training of autoencoders (Fumero et al.), from data and from noise.

Trained to take noise away from digits 0 to 4. At some steps: how many attractors training
latents, unseen ones and standard normal noise lead to, how far apart these sets are (Chamfer, in
spreads of all starts), and how the distance of an orbit from them tells digits 5 to 9 from 0 to 4.
The paper's figure has 5 000 starts of each kind; ours are in the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import torchkoopman as tk
from benchmarks.autoencoders import Autoencoder, Convolutional, Masked, Perceptron, denoise
from benchmarks.tables import markdown, seeds, spread, tasks
from torchkoopman.flows import Flow, FlowMonitor, NoveltyScores

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = 6000
"""Added to a seed for weights and training; data and noise take it bare."""
LOOKS = (0.0, 0.02, 0.1, 0.3, 1.0)
"""Shares of the training that are done at the looks."""
SCORES = ("orbit", "reconstruction", "kNN")


@dataclass(frozen=True)
class Kind:
    """An autoencoder, its data, and how long and from how many starts it is looked at."""

    make: Callable[[], Autoencoder]
    data: str
    shape: tuple[int, ...]
    """Of one input."""
    steps: int
    """Of the training."""
    starts: int
    """Of each kind at most."""
    applications: int
    """Of the flow at most."""
    adam: dict[str, Any]


KINDS = {
    "perceptron": Kind(lambda: Perceptron(64), "digits", (64,), 4000, 5000, 1000, {}),
    "perceptron on MNIST": Kind(lambda: Perceptron(784, 256), "mnist", (784,), 2000, 5000, 500, {}),
    "convolutional": Kind(
        Convolutional, "mnist", (1, 32, 32), 1500, 500, 300, {"lr": 5e-4, "weight_decay": 1e-4}
    ),
    "masked": Kind(Masked, "digits", (1, 8, 8), 1000, 100, 200, {}),
}


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Each kind by seed; quickly the perceptron on digits alone, for a tenth of its training."""
    known = tasks(quick)
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for name, kind in KINDS.items():
        if (quick and name != "perceptron") or (kind.data == "mnist" and "mnist" not in known):
            continue
        for seed in seeds(quick):
            found[f"{name.replace(' ', '-')}-{seed}"] = partial(followed, name, seed, quick)
    return found


def followed(name: str, seed: int, quick: bool = False) -> dict[str, Any]:
    """One training, looked at."""
    kind = KINDS[name]
    steps, most = (kind.steps // 10, 200) if quick else (kind.steps, kind.starts)
    sets = samples(kind, seed)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(SEED + seed)
    model = kind.make()
    with torch.no_grad():
        shape = model.eval().encode(sets["train"][:1]).shape[1:]
    noise = torch.randn(most, *shape, generator=generator)
    monitor = FlowMonitor(
        lambda m: Flow.of_autoencoder(m.encode, m.decode),
        {
            "train": lambda m: m.encode(sets["train"][:most]),
            "test": lambda m: m.encode(sets["test"][:most]),
            "noise": noise,
        },
        log_every=10**9,
        steps=kind.applications,
    )
    due = {round(share * steps) for share in LOOKS[1:]}
    told: list[dict[str, Any]] = []

    def after(step: int) -> None:
        monitor.step(step)
        if step in due:
            monitor.look()
        if step in due or step == 0:
            told.append(judged(model, sets))

    with monitor.attach(model):
        after(0)
        denoise(model, sets["train"], steps, after=after, **kind.adam)
    history = monitor.history
    with torch.no_grad():
        error = (model(sets["test"]) - sets["test"]).square().mean().item()
    return {
        "kind": name,
        "seed": seed,
        "latent": noise[0].numel(),
        "parameters": sum(each.numel() for each in model.parameters()),
        "error": error,
        "starts": [min(most, len(sets[each])) for each in ("train", "test")] + [most],
        "novelty": told,
        **{each: values.tolist() for each, values in history.tensors().items()},
    }


def judged(model: Autoencoder, sets: dict[str, Tensor]) -> dict[str, Any]:
    """AUROC and FPR95 of some scores."""
    training = model.training
    model.eval()
    scores = NoveltyScores(model.encode, model.decode, sets["train"][:300], steps=30)
    found = scores.compare(sets["test"][:300], sets["novel"][:300])
    model.train(training)
    return {name: [found.auroc[name], found.fpr95[name]] for name in SCORES if name in found.auroc}


def samples(kind: Kind, seed: int) -> dict[str, Tensor]:
    """Digits 0 to 4 for training and test, and 5 to 9."""
    data = tk.datasets.mnist() if kind.data == "mnist" else tk.datasets.digits(seed=seed)
    low, high = data.test.labels < 5, data.test.labels >= 5
    train = data.train.inputs[data.train.labels < 5][:20_000]
    sets = {"train": train, "test": data.test.inputs[low], "novel": data.test.inputs[high]}
    return {name: shaped(each, kind) for name, each in sets.items()}


def shaped(images: Tensor, kind: Kind) -> Tensor:
    """As the network takes them; MNIST is padded to 32 × 32 for convolutions."""
    side = 28 if kind.data == "mnist" else 8
    square = images.reshape(-1, 1, side, side)
    if kind.shape[-1] == 32:
        square = torch.nn.functional.pad(square, (2, 2, 2, 2))
    return square.reshape(-1, *kind.shape)


def table(results: dict[str, dict[str, Any]]) -> str:
    """A row for each kind and look."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in results.values():
        groups.setdefault(run["kind"], []).append(run)
    rows = []
    for name in KINDS:
        for look in range(len(LOOKS) if name in groups else 0):
            rows.append(_row(name, look, groups[name]))
    head = ["autoencoder", "steps", "from train", "from test", "from noise", "converged",
            "noise converged", "gone", "train to noise", "test to noise",
            "FPR95 orbit", "FPR95 reconstruction"]  # fmt: skip
    sizes = [
        f"{name}: {runs[0]['latent']} latent numbers, {runs[0]['parameters']} parameters, "
        f"{', '.join(map(str, runs[0]['starts']))} starts from train, test and noise, "
        f"{KINDS[name].applications} applications of the flow at most"
        for name, runs in groups.items()
    ]
    below = "Numbers of starts are those of the first seed; chance is an FPR95 of 0.95."
    return f"{markdown(head, rows)}\n\n{'; '.join(sizes)}. {below}"


def _row(name: str, look: int, runs: list[dict[str, Any]]) -> list[str]:
    def over(key: str, *at: int, digits: int = 2) -> str:
        values = []
        for run in runs:
            value: Any = run[key][look]
            for k in at:
                value = value[k]
            values.append(value)
        known = [value for value in values if value == value]  # without NaN, of empty sets
        return spread(known, digits) if known else "–"

    fpr = [
        [run["novelty"][look][score][1] for run in runs if score in run["novelty"][look]]
        for score in SCORES[:2]
    ]
    return [
        name,
        str(runs[0]["steps"][look]),
        *(over("attractors", k, digits=1) for k in range(3)),
        over("converged", 0),
        over("converged", 2),
        over("gone", digits=1),
        over("chamfer", 0, 2),
        over("chamfer", 1, 2),
        *(spread(each) if each else "–" for each in fpr),
    ]
