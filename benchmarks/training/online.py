"""A surrogate that keeps up with a network in training: ``make online``.

A residual perceptron learns Yin-Yang. After every epoch it is validated, as networks are, and
fitters that are attached for the whole training learn from these passes alone (``when="eval"``). At
ten checkpoints each is held against a fitter made anew for the network as it is then, by the
variance of the last block that it leaves unexplained on test data no fit has seen.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import torchkoopman as tk
from benchmarks.networks import ResidualMLP, accuracy
from torchkoopman.datasets import yin_yang

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor
    from torch.utils.data import DataLoader

    from torchkoopman.datasets import Labelled

    Batches = DataLoader[tuple[Tensor, ...]]

HALFLIFE = 1000.0
"""Rows: a fifth of a validation pass, so that a thirtieth of the last one is left after the next.
It must exceed the 511 observables of EDMD; longer ones follow a network that moves less closely."""
CHECKPOINTS = 10
STEPS = 80
"""Gradient steps of the autoencoder in a validation pass, beside 100 for each time the data drift
out of their coordinates; a fresh one takes ``FRESH``."""
FRESH = 500
LAYERS = "blocks.*"
KINDS = ("DMD", "EDMD", "autoencoder")


@dataclass
class Checkpoint:
    """How good the fits are of the network at one moment of its training."""

    epoch: int
    accuracy: float
    left: dict[str, dict[str, float]] = field(default_factory=dict)
    """Kind of fit → ``"fresh"``, ``"halflife"``, ``"no halflife"`` → ``1 - R²``, last block."""

    def ratio(self, kind: str, stream: str = "halflife") -> float:
        """``1 - R²`` of a streamed fit to that of the fresh one."""
        return self.left[kind][stream] / self.left[kind]["fresh"]


def fitters(kinds: Iterable[str], halflife: float | None, seed: int, passes: int) -> dict[str, Any]:
    """A fitter of each kind; the autoencoder takes its steps over so many batches of a pass."""
    options: dict[str, Any] = {"generator": torch.Generator().manual_seed(seed)}
    options["halflife"] = halflife
    make: dict[str, Callable[[], Any]] = {
        "DMD": lambda: tk.DMDFitter(halflife=halflife),
        "EDMD": lambda: tk.EDMDFitter(**options),
        "autoencoder": lambda: tk.AutoencoderFitter(
            latent=32, steps_per_update=STEPS / passes, **options
        ),
    }
    return {kind: make[kind]() for kind in kinds}


def validate(model: nn.Module, batches: Batches) -> None:
    """A pass over the validation data, as trainings have them."""
    model.eval()
    with torch.no_grad():
        for inputs, _ in batches:
            model(inputs)


def watched(
    seed: int, epochs: int, kinds: Iterable[str] = KINDS, told: Callable[[Checkpoint], None] = print
) -> list[Checkpoint]:
    """Train a network with fitters attached; ``told`` is called at each checkpoint."""
    data, fresh_data = yin_yang(seed=seed), yin_yang(seed=seed + 100)
    validation = fresh_data.train.loader(500, seed=seed)
    torch.manual_seed(1000 + seed)
    model = ResidualMLP(4, 10, 5, 3)
    passes = len(validation)
    streams = {
        "halflife": fitters(kinds, HALFLIFE, seed, passes),
        "no halflife": fitters(kinds, None, seed, passes),
    }
    moments = {max(1, round(epochs * k / CHECKPOINTS)) for k in range(1, CHECKPOINTS + 1)}
    found = []
    with tk.attach(model, LAYERS, when="eval") as probe:
        probe.stream_to(*(each for group in streams.values() for each in group.values()))
        for epoch, _ in enumerate(training(model, data.train, epochs, seed), 1):
            validate(model, validation)
            if epoch in moments:
                fits = {"fresh": anew(model, validation, kinds, seed), **streams}
                found.append(checkpoint(model, data.test, epoch, fits))
                told(found[-1])
    return found


def training(model: nn.Module, data: Labelled, epochs: int, seed: int) -> Iterable[None]:
    """SGD as in arXiv 2505.12809, with a one-cycle learning rate; yields after every epoch."""
    loader, rate = data.loader(500, seed=seed), 0.03
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=epochs * len(loader), cycle_momentum=False
    )
    for _ in range(epochs):
        model.train()
        for x, y in loader:
            optimiser.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        yield


def anew(model: nn.Module, batches: Batches, kinds: Iterable[str], seed: int) -> dict[str, Any]:
    """Fitters made now, that have seen the present network alone."""
    copied = ResidualMLP(4, 10, 5, 3)
    copied.load_state_dict(model.state_dict())
    fresh = fitters(kinds, None, seed, len(batches))
    with tk.attach(copied, LAYERS) as probe:
        probe.stream_to(*fresh.values())
        validate(copied, batches)
    if "autoencoder" in fresh:
        fresh["autoencoder"].train(FRESH - STEPS)
    return fresh


def checkpoint(
    model: nn.Module, test: Labelled, epoch: int, fits: dict[str, dict[str, Any]]
) -> Checkpoint:
    """Hold the fits against a copy of the network, on data none of them has seen."""
    copied = ResidualMLP(4, 10, 5, 3).eval()
    copied.load_state_dict(model.state_dict())
    found = Checkpoint(epoch, accuracy(copied, test))
    for stream, group in fits.items():
        for kind, fitter in group.items():
            told = tk.evaluate(fitter.surrogate, copied, test.loader(1000))
            found.left.setdefault(kind, {})[stream] = 1 - told.r2
    return found


def table(found: list[Checkpoint], kinds: Iterable[str]) -> str:
    """Markdown: at each checkpoint the fresh fit's ``1 - R²``, and the streamed ones' beside it."""
    kinds = list(kinds)
    titles = [f"{kind}: fresh, with halflife (ratio), without" for kind in kinds]
    lines = ["| epoch | accuracy % | " + " | ".join(titles) + " |", "|---" * (2 + len(kinds)) + "|"]
    for each in found:
        cells = [
            f"{each.left[kind]['fresh']:.4f}, {each.left[kind]['halflife']:.4f} "
            f"({each.ratio(kind):.2f}), {each.left[kind]['no halflife']:.4f}"
            for kind in kinds
        ]
        lines.append(f"| {each.epoch} | {100 * each.accuracy:.1f} | {' | '.join(cells)} |")
    worst = ", ".join(f"{kind} {max(each.ratio(kind) for each in found):.2f}" for kind in kinds)
    without = ", ".join(
        f"{kind} {max(each.ratio(kind, 'no halflife') for each in found):.2f}" for kind in kinds
    )
    return "\n".join([*lines, f"largest ratio: {worst}; without a halflife {without}"])


def picture(found: list[Checkpoint], path: Path) -> None:
    """``1 - R²`` of the present network through training, one panel for each kind of fit."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    kinds = list(found[0].left)
    figure, axes = plt.subplots(
        1, len(kinds), figsize=(3.9 * len(kinds), 3.6), layout="constrained", squeeze=False
    )
    epochs = [each.epoch for each in found]
    styles = {
        "no halflife": ("#9a9a9a", "s", 1.4, "attached, all rows alike"),
        "halflife": ("#d9762b", "o", 1.8, f"attached, halflife {HALFLIFE:.0f} rows"),
        "fresh": ("#1b5e8c", "D", 1.4, "fitted anew"),
    }
    for place, kind in zip(axes[0], kinds, strict=True):
        fresh = [each.left[kind]["fresh"] for each in found]
        place.fill_between(
            epochs, fresh, [1.5 * value for value in fresh], color="#1b5e8c", alpha=0.15, lw=0
        )
        for stream, (colour, marker, width, label) in styles.items():
            values = [each.left[kind][stream] for each in found]
            place.plot(
                epochs, values, color=colour, marker=marker, ms=4, linewidth=width, label=label
            )
        place.set(yscale="log", xlabel="epoch", title=kind)
        place.grid(alpha=0.25, which="major")
    axes[0, 0].set_ylabel("1 − R², last block")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(
        "A network in training, watched: unseen rows of the network as it is at each checkpoint; "
        "shaded: up to 1.5 times a fresh fit",
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def main() -> int:
    """Watch a training; 1 if a fit with a halflife falls behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--closed", action="store_true", help="closed forms alone, in a minute")
    parser.add_argument("--out", type=Path, default=Path("runs/figures"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kinds = KINDS[:2] if arguments.closed else KINDS
    found = watched(arguments.seed, arguments.epochs, kinds)
    print(table(found, kinds))
    picture(found, arguments.out / "online.png")
    print(arguments.out / "online.png")
    return int(any(each.ratio(kind) > 1.5 for each in found for kind in kinds))


if __name__ == "__main__":
    sys.exit(main())
