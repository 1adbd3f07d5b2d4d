"""A training's record as large and as restless as a real one, without training anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torchkoopman_panels import Document, Series

if TYPE_CHECKING:
    from collections.abc import Iterator

SPAN_LAYERS = {"0-3": 3, "0-6": 6, "3-9": 6, "0-12": 12}


def drifting(
    steps: int = 1000, modes: int = 64, runs: tuple[str, ...] = ("run",), spans: int = 4
) -> Document:
    """Spectra of spans that drift with the training, each with the noise of its own batch.

    The modes are conjugate pairs, the largest modulus first, so that neighbours in time may change
    places, as in a real fit.
    """
    document = Document("drifting spectra")
    for number, run in enumerate(runs):
        for span, layers in list(SPAN_LAYERS.items())[:spans]:
            random = np.random.default_rng([number, layers, *map(ord, span)])
            for step, series in _of_span(steps, modes, layers, random):
                document.add(run, span, step, series)
    return document


def _of_span(
    steps: int, modes: int, layers: int, random: np.random.Generator
) -> Iterator[tuple[int, list[Series]]]:
    pairs = modes // 2
    moduli, angles = random.uniform(0.05, 1.02, pairs), random.uniform(0, np.pi, pairs)
    # Residual, energy, error, closure and condition: log10.
    levels = np.stack([*random.uniform(-6, -0.5, (4, pairs)), random.uniform(0, 3, pairs)])
    names = [str(layer) for layer in range(layers + 1)]
    about = {
        "layers": names,
        "times": list(range(layers + 1)),
        "steps": layers,
        "frames": "per_layer",
    }
    for step in range(steps):
        moduli = np.clip(moduli + random.normal(0, 2e-3, pairs), 0.01, 1.05)
        angles = angles + random.normal(0, 2e-3, pairs)
        noise = random.normal(0, 1e-3, pairs)
        values = (moduli + noise) * np.exp(1j * (angles + noise))
        known = 10.0 ** (levels + random.normal(0, 0.05, levels.shape))
        order = np.argsort(-np.abs(values))
        both = np.stack([values, values.conj()], 1)[order].reshape(-1)
        known = np.repeat(known[:, order], 2, 1)
        trusted = known[0] < 0.05
        spectrum = np.stack([both.real, both.imag, *known[:4], trusted, known[4]], 1)
        r2 = 1 - 10.0 ** random.normal(-2, 0.05, layers)
        singular = np.sort(np.abs(both) * random.uniform(1, 1.5, modes))[::-1]
        yield (
            10 * step,
            [
                Series("spectrum", spectrum, about),
                Series("singular_values", singular, {}),
                Series("r2", r2, {"layers": names[1:]}),
                Series("tracks", (2.0 * order[:, None] + [0, 1]).reshape(-1), {}),
            ],
        )
