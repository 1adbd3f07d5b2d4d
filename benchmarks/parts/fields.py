"""Latent vector fields (Fumero et al.): what attractors remember, and what their orbits tell.

Perceptrons that denoise, on 8 × 8 digits; memory and novelty on MNIST in full, too. All that could
be chance stands beside its null: unseen samples, shuffled scores, random atoms. The bars are ours,
not the paper's.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.parts import fields_tables as shown
from benchmarks.parts.fields_memory import memory, split
from benchmarks.parts.fields_networks import LATENT, NOISE
from benchmarks.parts.fields_scores import novelty, probes, score
from benchmarks.tables import seeds, tasks

if TYPE_CHECKING:
    from collections.abc import Callable

FEW, ALL, ALL_MNIST = shown.FEW, shown.ALL, shown.ALL_MNIST
SIZES = (FEW, 100, 400, ALL)
"""Training samples; the last are all digits that are not kept for the test."""
WIDTHS = (2, 8, 16, 64)
"""Latent states' widths; memory by size has 16."""
MNIST_STEPS = 6000
"""Of the training for memory on MNIST; twice as many made the error an eighth smaller."""
SIGMAS = (0.0, 0.1, 0.3)
"""Noise of the training where the field is compared with the score."""


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Memory by size and width, the rate law, errors, probes, the score, and novelty; by seed."""
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    steps = 600 if quick else 4000
    data = ["digits", *(["mnist"] if "mnist" in tasks(quick) else [])]
    for seed in seeds(quick):
        for size in SIZES[:1] if quick else SIZES:
            found[f"size-{size}-{seed}"] = partial(memory, size, LATENT, NOISE, seed, steps)
        for width in () if quick else WIDTHS:
            if width != LATENT:
                found[f"width-{width}-{seed}"] = partial(memory, ALL, width, NOISE, seed, steps)
        for size in () if quick else (FEW, ALL):
            found[f"plain-{size}-{seed}"] = partial(memory, size, LATENT, 0.0, seed, steps)
        for size in SIZES[:1] if quick else (FEW, ALL):
            found[f"split-{size}-{seed}"] = partial(split, size, seed, steps)
        found[f"probe-{seed}"] = partial(probes, seed, steps)
        for sigma in SIGMAS[1:2] if quick else SIGMAS:
            found[f"score-{sigma:g}-{seed}"] = partial(score, sigma, seed, steps)
        for size in (FEW, ALL_MNIST) if "mnist" in data else ():
            longer = partial(memory, size, LATENT, NOISE, seed, MNIST_STEPS, mnist=True)
            found[f"size-mnist-{size}-{seed}"] = longer
        for name in data:
            found[f"novelty-{name}-{seed}"] = partial(novelty, name, seed, steps)
    return found


def table(results: dict[str, dict[str, Any]]) -> str:
    """All tables, as far as there are results for them."""
    made = {
        "size": (shown.memory_table, "Attractors from training starts:"),
        "split": (shown.split_table, "Squared errors per number, split at the attractors:"),
        "probe": (shown.probe_table, "What was never shown by few atoms, autoencoder of 0 to 4:"),
        "score": (shown.score_table, "The field in the plane and the score of a known mixture:"),
        "novelty": (
            shown.novelty_table,
            "Novelty; known are unseen digits 0 to 4, novel what the columns say:",
        ),
    }
    parts = [
        f"{title}\n\n{draw(results)}"
        for kind, (draw, title) in made.items()
        if shown.of(results, kind)
    ]
    return "\n\n".join(parts)
