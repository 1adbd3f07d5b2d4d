"""Yin-Yang networks by the recipe of arXiv 2505.12809: two inputs, width 10, five blocks.

2 000 epochs of SGD at batch 512 (arXiv 2505.12809), about two minutes on one thread. Trained once
for each seed, then read from a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from benchmarks.networks import ResidualMLP, train
from torchkoopman.datasets import Labelled, yin_yang

if TYPE_CHECKING:
    from pathlib import Path

FRESH, EPOCHS = 20_000, 2000
"""Points of the test: at 5 000 of them the sampling deviation alone is .1 points of accuracy."""
TEST_SEED, NETWORK_SEED = 90_000, 70_000
"""Added to a network's seed, so that no draw goes with another."""


def data(seed: int, samples: int) -> Labelled:
    """Points of the unit square with their classes; the authors give x and y alone."""
    drawn = yin_yang(samples, 1, seed=seed).train
    return Labelled(drawn.inputs[:, :2], drawn.labels)


def network(seed: int, folder: Path, epochs: int = EPOCHS) -> ResidualMLP:
    """A trained network, read from ``folder`` or made and put there."""
    path = folder / f"network-{seed}-{epochs}.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(NETWORK_SEED + seed)
        model = ResidualMLP(2, 10, 5, 3)
        if path.exists():
            model.load_state_dict(load_file(path))
            return model.eval()
        drawn = NETWORK_SEED + seed
        train(model, data(seed, 5000), epochs=epochs, batch=512, rate=1e-2, seed=drawn)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
    return model
