"""What a latent field tells of data: codes of few atoms, the score of a density, and novelty."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import torchkoopman as tk
from benchmarks.parts.fields_networks import LATENT, NOISE, autoencoder
from torchkoopman.flows import Flow, NoveltyScores, dictionaries, probe

COUNTS = (1, 4, 16)
"""Atoms in a code."""
SIZES = (32, 256, 4096)
"""Atoms of a dictionary, of which ``FEW`` are in a code; the paper has these and those between."""
FEW = 4


def probes(seed: int, steps: int) -> dict[str, Any]:
    """Few atoms that code what an autoencoder of the digits 0 to 4 was never shown.

    The digits 5 to 9; other digits 0 to 4, turned by a right angle; these with their pixels in one
    other order. Dictionaries have as many atoms as attractors were found; and then more.
    """
    data = tk.datasets.digits(seed=seed)
    train, known, others = of_known(data)
    side = 8
    encode, decode = autoencoder(train, LATENT, NOISE, seed, steps)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        latents = encode(train)
    noise = torch.randn(max(SIZES), LATENT, generator=generator) * latents.std()
    flow = Flow.of_autoencoder(encode, decode)
    atoms = dictionaries(flow, noise, latents, generator=generator)
    once = noise + flow.velocity(noise)
    more = {
        f"{name}, {size}": each[:size]
        for name, each in (
            ("one step", once),
            ("random directions", noise),
            ("training latents", latents),
        )
        for size in SIZES
        if size <= len(each)
    }
    order = torch.randperm(side**2, generator=generator)
    unseen = {
        "5 to 9": others,
        "0 to 4, turned": turned(known, side),
        "0 to 4, pixels shuffled": known[:, order],
        "0 to 4": known,
    }
    found: dict[str, Any] = {}
    for name, inputs in unseen.items():
        told = probe(encode, decode, inputs, atoms, COUNTS)
        larger = probe(encode, decode, inputs, more, [FEW])
        found[name] = {
            "plain": told.plain,
            "errors": dict(told.errors),
            "larger": {each: errors[0] for each, errors in larger.errors.items()},
        }
    return {"sizes": {name: len(each) for name, each in atoms.items()}, "unseen": found}


def score(sigma: float, seed: int, steps: int) -> dict[str, Any]:
    """Cosine of the field with the score of the noisy density of a known mixture in the plane."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.tensor([[1.5, 0.0], [-0.8, 1.2], [-0.8, -1.2]])
    width = 0.3

    def draw(rows: int) -> Tensor:
        which = torch.randint(3, (rows,), generator=generator)
        return centres[which] + width * torch.randn(rows, 2, generator=generator)

    encode, decode = autoencoder(draw(5000), 2, sigma, seed, steps, features=2)
    flow = Flow(nn.Sequential(encode, decode).eval())
    points = draw(2000) + sigma * torch.randn(2000, 2, generator=generator)
    variance = width**2 + sigma**2
    away = centres - points[:, None]
    weights = (-away.square().sum(2) / (2 * variance)).softmax(1)
    exact = (weights[..., None] * away).sum(1) / variance
    velocity = flow.velocity(points)
    cosine = torch.nn.functional.cosine_similarity
    shuffled = exact[torch.randperm(len(exact), generator=generator)]
    return {
        "sigma": sigma,
        "cosine": cosine(velocity, exact).mean().item(),
        "null": cosine(velocity, shuffled).mean().item(),
    }


def novelty(name: str, seed: int, steps: int) -> dict[str, Any]:
    """All scores on digits never shown, on noise and on turned digits; known are digits 0 to 4."""
    on_mnist = name == "mnist"
    data = tk.datasets.mnist() if on_mnist else tk.datasets.digits(seed=seed)
    side = 28 if on_mnist else 8
    train, known, others = of_known(data)
    train, known, others = train[:20_000], known[:2000], others[:2000]
    features = side**2
    encode, decode = autoencoder(train, LATENT, NOISE, seed, steps, features)
    generator = torch.Generator().manual_seed(seed)
    scores = NoveltyScores(encode, decode, train[:2000], steps=30)
    noise = train.mean() + train.std() * torch.randn(2000, features, generator=generator)
    found: dict[str, Any] = {"data": "MNIST" if on_mnist else "8 × 8 digits"}
    for kind, novel in (("5 to 9", others), ("noise", noise), ("turned", turned(known, side))):
        told = scores.compare(known, novel)
        found[kind] = {each: [told.auroc[each], told.fpr95[each]] for each in told.auroc}
    return found


def of_known(data: tk.datasets.Split) -> tuple[Tensor, Tensor, Tensor]:
    """Digits 0 to 4 for the training and for the test, and 5 to 9 of the test; flat."""
    train = data.train.inputs[data.train.labels < 5].flatten(1)
    unseen, below = data.test.inputs.flatten(1), data.test.labels < 5
    return train, unseen[below], unseen[~below]


def turned(images: Tensor, side: int) -> Tensor:
    """Flat images, turned by a right angle."""
    return torch.rot90(images.view(-1, side, side), 1, (1, 2)).flatten(1)
