"""Tasks of arXiv 2505.12809: data, network, training, and how its blocks are fitted.

What the demo and the bench share. Data, network and fitter have seeds of their own, so that no
draw of one goes with a draw of another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

import torchkoopman as tk
from benchmarks.networks import ResidualMLP, train
from torchkoopman.datasets import YIN_YANG_CLASSES, Split, mnist, yin_yang

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn
    from torch.utils.data import DataLoader

    from torchkoopman.datasets import Labelled

NETWORK_SEED, FITTER_SEED = 1000, 2000
"""Added to a seed for the network's weights and training, and for the fitter; data take it bare."""


@dataclass(frozen=True)
class Task:
    """A data set, the paper's network for it, and how its blocks are fitted."""

    data: Callable[[int], Split]
    """Seed → train and test part."""
    network: tuple[int, int, int, int]
    """Inputs, width, blocks, classes."""
    training: dict[str, Any]
    """Arguments of ``train`` in ``networks.py``."""
    batch: int
    """Samples of a streamed batch."""
    classes: tuple[str, ...]
    forget: int
    """Class to forget in the demo."""
    autoencoder: dict[str, Any]
    """Arguments of ``tk.AutoencoderFitter``."""
    steps: int
    """Gradient steps after the stream has ended."""

    @property
    def span(self) -> tuple[str, str]:
        """First and last block."""
        return "blocks.0", f"blocks.{self.network[2] - 1}"

    def fresh(self) -> ResidualMLP:
        """A new network, its weights drawn from torch's global generator."""
        return ResidualMLP(*self.network)

    def trained(self, data: Labelled, seed: int) -> ResidualMLP:
        """A network trained on ``data``."""
        torch.manual_seed(NETWORK_SEED + seed)
        model = self.fresh()
        train(model, data, **self.training, seed=NETWORK_SEED + seed)
        return model

    def fitter(self, model: ResidualMLP, seed: int, **options: Any) -> tk.AutoencoderFitter:
        """The autoencoder of this task; ``options`` override its arguments."""
        generator = torch.Generator().manual_seed(FITTER_SEED + seed)
        arguments = {**self.autoencoder, "tail": model.head, "generator": generator, **options}
        return tk.AutoencoderFitter(**arguments)

    def stream(self, data: Labelled, seed: int) -> DataLoader[tuple[Tensor, ...]]:
        """Training batches in an order of the fitter's seed."""
        return data.loader(self.batch, seed=FITTER_SEED + seed)


def watch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, ...]],
    fitter: tk.AutoencoderFitter,
    after: Callable[[int], None] | None = None,
) -> tk.AutoencoderFitter:
    """Stream a model's blocks into a fitter; ``after`` each batch comes a call with its number."""
    with torch.no_grad(), tk.attach(model, "blocks.*") as probe:
        probe.stream_to(fitter)
        for number, (inputs, labels) in enumerate(batches):
            with probe.labels(labels):
                model(inputs)
            if after is not None:
                after(number)
    return fitter


TASKS = {
    "yinyang": Task(
        data=lambda seed: yin_yang(seed=seed),
        network=(4, 10, 5, 3),
        training={"epochs": 1000, "batch": 500, "rate": 0.03},
        batch=500,
        classes=YIN_YANG_CLASSES,
        forget=2,
        autoencoder={"latent": 64, "steps_per_update": 60},
        steps=700,
    ),
    "mnist": Task(
        data=lambda seed: mnist(),
        network=(784, 784, 4, 10),
        # Weight decay switches the blocks off one after the other; skipping them all then costs
        # next to nothing, and a surrogate of them proves nothing.
        training={"epochs": 5, "batch": 128, "rate": 0.1, "decay": 0.0},
        batch=512,
        classes=tuple("0123456789"),
        forget=4,
        autoencoder={
            "latent": 300,
            "hidden": (800,),
            "rank": 300,
            "learning_rate": 3e-3,
            "steps_per_update": 2,
        },
        steps=1800,
    ),
}
