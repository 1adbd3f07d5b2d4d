"""What is read first, on a network in training: ``make readable``.

A residual perceptron learns Yin-Yang, with EDMD attached to its validation passes. How many
modes are followed, where the pseudospectrum looks, what TensorBoard calls the spectral radius: of
trusted modes, beside the same of all. And how far operators are apart: of one network by two draws
of the dictionary, of two networks in training, of two that were not trained; beside pairs of which
one or both were not trained, and beside two fits of one system.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import torch

import torchkoopman as tk
from benchmarks.networks import ResidualMLP
from benchmarks.training.online import LAYERS, training, validate
from torchkoopman.datasets import yin_yang

HALFLIFE = 5000.0
"""Rows: one validation pass."""
RANK = 20
DRAWS, NETWORKS = "one network, two draws of the dictionary", "two networks, one draw each"
UNTRAINED, BEGAN = "two networks that were not trained", "a network and what it began as"


@dataclass(frozen=True)
class Watched:
    """A network's training as EDMD saw it."""

    spectra: tuple[tk.results.Spectrum, ...]
    """After every fourth epoch."""
    last: tk.Surrogate
    again: tk.Surrogate
    """Of the network as it is at the end, by another draw of the dictionary."""


def watched(seed: int, epochs: int) -> Watched:
    """Train a network; without epochs it is fitted as it was drawn."""
    data, unseen = yin_yang(seed=seed), yin_yang(seed=seed + 100)
    validation = unseen.train.loader(500, seed=seed)
    torch.manual_seed(1000 + seed)
    model = ResidualMLP(4, 10, 5, 3)
    fitter = tk.EDMDFitter(halflife=HALFLIFE, generator=torch.Generator().manual_seed(seed))
    spectra = []
    if epochs:
        with tk.attach(model, LAYERS, when="eval") as probe:
            probe.stream_to(fitter)
            for epoch, _ in enumerate(training(model, data.train, epochs, seed), 1):
                validate(model, validation)
                if epoch % 4 == 0:
                    spectra.append(fitter.surrogate.spectrum())
    fits = []
    for draw in (0, 500):
        other = tk.EDMDFitter(generator=torch.Generator().manual_seed(seed + draw))
        with tk.attach(model, LAYERS) as probe:
            probe.stream_to(other)
            validate(model, validation)
        fits.append(other.surrogate)
    return Watched(tuple(spectra), *fits)


def looks(found: Watched) -> str:
    """Modes followed, the grid, the radius; of trusted modes and of all."""
    told, every = tk.follow(found.spectra), tk.follow(found.spectra, trusted=False)
    spectrum, grid = found.last.spectrum(), found.last.pseudospectrum(points=31)
    reach = max(grid.real.abs().max().item(), grid.imag.abs().max().item())
    kept = spectrum.keep(spectrum.trusted())
    lines = [
        f"{'':24} {'trusted':>9} {'all':>9}",
        _row("modes followed", told.indices.shape[1], every.indices.shape[1]),
        _row("… born or gone meanwhile", _passing(told), _passing(every)),
        _row("radius", kept.radius, spectrum.radius),
        _row("… per layer", kept.radius ** (1 / kept.steps), spectrum.radius ** (1 / kept.steps)),
        f"{'pseudospectrum up to':24} {reach:9.3g}",
    ]
    return "\n".join(lines)


def _row(name: str, first: float, second: float) -> str:
    return f"{name:24} {first:9.4g} {second:9.4g}"


def _passing(tracks: tk.results.ModeTracks) -> int:
    """Modes that are not there at every step."""
    return int((tracks.indices < 0).any(0).sum())


def distances(
    trained: tuple[Watched, Watched], raw: tuple[Watched, Watched]
) -> dict[str, tk.results.OperatorDistance]:
    """What was compared → how far apart it is."""
    (one, other), (began, apart) = trained, raw
    pairs = {
        DRAWS: (one.last, one.again),
        NETWORKS: (one.last, other.last),
        UNTRAINED: (began.last, apart.last),
        BEGAN: (one.last, began.last),
    }
    untrained = [(one.last, began.last), (other.last, apart.last), (one.last, apart.last)]
    untrained += [(other.last, began.last), (began.last, apart.last)]
    found = {}
    for name, pair in pairs.items():
        beside = [each for each in untrained if each != pair]
        generator = torch.Generator().manual_seed(0)
        found[name] = tk.compare(*pair, rank=RANK, beside=beside, generator=generator)
    return found


def table(found: dict[str, tk.results.OperatorDistance]) -> str:
    """Each pair's relative distance, that of pairs with untrained networks, and that of sampling.

    ``below`` is the share of such pairs that are farther apart, ``above`` the share of fits to
    other rows of one system that are nearer.
    """
    lines = [f"{'':42} {'distance':>9} {'null':>6} {'below':>6} {'floor':>6} {'above':>6}"]
    for name, each in found.items():
        null, floor = ((t / each.scale).mean().item() for t in (each.null_similarity, each.floor))
        lines.append(
            f"{name:42} {each.relative:9.3f} {null:6.3f} {each.below_null:6.2f} {floor:6.3f} "
            f"{each.above_floor:6.2f}"
        )
    return "\n".join(lines)


def main() -> int:
    """Print both tables; 1 if a draw of the dictionary outweighs a network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    trained, raw = (
        (watched(chosen.seed, epochs), watched(chosen.seed + 1, epochs))
        for epochs in (chosen.epochs, 0)
    )
    print(looks(trained[0]))
    found = distances(trained, raw)
    print(table(found))
    return int(found[DRAWS].relative >= found[NETWORKS].relative)


if __name__ == "__main__":
    sys.exit(main())
