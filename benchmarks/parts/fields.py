"""Latent vector fields (Fumero et al.): what attractors remember, and what their orbits tell.

Perceptrons that denoise, on 8 × 8 digits; novelty on MNIST in full. All that could be chance stands
beside its null: unseen samples, shuffled scores, random atoms. The bars are ours, not the paper's.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import torchkoopman as tk
from benchmarks.parts import fields_tables as shown
from benchmarks.tables import seeds, tasks
from torchkoopman.flows import (
    Flow,
    NoveltyScores,
    chamfer,
    dictionaries,
    dictionary_rank,
    memorization,
    probe,
)

if TYPE_CHECKING:
    from collections.abc import Callable

FEW, ALL = 10, 1258
SIZES = (FEW, 100, 400, ALL)
"""Training samples; the last are all digits that are not kept for the test."""
WIDTHS = (2, 8, 16, 64)
"""Latent states' widths; memory by size has 16."""
LATENT = 16
NOISE = 0.1
SIGMAS = (0.0, 0.1, 0.3)
"""Noise of the training where the field is compared with the score."""
STARTS = 500
COUNTS = shown.COUNTS
AUTOENCODER_SEED = 4000
"""Added to a seed for weights and training; data take it bare."""


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Memory by size and width, the rate law, probes, the score, and novelty; by seed."""
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    steps = 600 if quick else 4000
    for seed in seeds(quick):
        for size in SIZES[:1] if quick else SIZES:
            found[f"size-{size}-{seed}"] = partial(memory, size, LATENT, NOISE, seed, steps)
        for width in () if quick else WIDTHS:
            if width != LATENT:
                found[f"width-{width}-{seed}"] = partial(memory, ALL, width, NOISE, seed, steps)
        for size in () if quick else (FEW, ALL):
            found[f"plain-{size}-{seed}"] = partial(memory, size, LATENT, 0.0, seed, steps)
        found[f"probe-{seed}"] = partial(probes, seed, steps)
        for sigma in SIGMAS[1:2] if quick else SIGMAS:
            found[f"score-{sigma:g}-{seed}"] = partial(score, sigma, seed, steps)
        found[f"novelty-{seed}"] = partial(novelty, seed, steps, "mnist" in tasks(quick))
    return found


def memory(size: int, width: int, noise: float, seed: int, steps: int) -> dict[str, Any]:
    """One autoencoder's attractors, from training samples, unseen ones and noise."""
    data = tk.datasets.digits(seed=seed)
    train, unseen = data.train.inputs[:size].flatten(1), data.test.inputs.flatten(1)
    encode, decode = autoencoder(train, width, noise, seed, steps)
    flow = Flow.of_autoencoder(encode, decode)
    with torch.no_grad():
        error = (decode(encode(unseen)) - unseen).square().mean().item()
        latents = {"train": encode(train)[:STARTS], "test": encode(unseen)[:STARTS]}
    generator = torch.Generator().manual_seed(seed)
    latents["noise"] = torch.randn(STARTS, width, generator=generator)
    found: dict[str, Any] = {"size": size, "width": width, "noise": noise, "error": error}
    points = {}
    for name, starts in latents.items():
        told = flow.fixed_points(starts, 3000)
        with torch.no_grad():
            points[name] = decode(told.attractors)
        kept = memorization(points[name], train, unseen)
        found[f"from {name}"] = {
            "converged": told.share_converged,
            "diverged": told.settled.diverged.double().mean().item(),
            "fixed": len(told.points),
            "attractors": len(points[name]),
            "recovered": int(kept.recovered.sum()),
            "coefficient": kept.coefficient if len(points[name]) else None,
            "null": kept.null.mean().item(),
            "rank": dictionary_rank(points[name]),
            **rates(flow, told),
        }
    if len(points["train"]) and len(points["noise"]):
        found["chamfer"] = chamfer(points["train"], points["noise"])
    return found


def rates(flow: Flow, told: tk.flows.FixedPoints) -> dict[str, Any]:
    """Steps in which orbits near each attractor come e times closer: measured, and by two laws."""
    stable = told.stable & (told.radii > 0.05) & (told.radii < 0.99)
    if not stable.any():
        return {"rated": 0}
    points = told.points[stable]
    generator = torch.Generator().manual_seed(0)
    away = torch.randn(points.shape, generator=generator)
    away *= 1e-3 * told.settled.spread / away.flatten(1).norm(dim=1)[:, None]
    orbit = flow.orbit(points + away, 60) - points
    sizes = orbit.flatten(2).double().norm(dim=2)
    # Until rounding: the slope of the distance's logarithm over the last steps above it.
    measured = []
    for course in sizes.T:
        above = int((course > 1e-5 * told.settled.spread).sum())
        if above < 6:
            measured.append(float("nan"))
            continue
        fall = (course[above // 2] / course[above - 1]).log().item()
        measured.append((above - 1 - above // 2) / fall if fall > 0 else float("nan"))
    known = [k for k, each in enumerate(measured) if each == each]
    ratios = {
        by: [told.rates(by)[stable][k].item() / measured[k] for k in known]
        for by in ("radius", "norm")
    }
    norms = told.norms[stable]
    return {
        "rated": len(known),
        "radius ratio": median(ratios["radius"]) if known else None,
        "norm ratio": median([r for r in ratios["norm"] if r == r] or [float("inf")])
        if known
        else None,
        "without a value": (norms >= 1).double().mean().item(),
    }


def probes(seed: int, steps: int) -> dict[str, Any]:
    """Few atoms that code digits never shown (5 to 9), by an autoencoder of the others."""
    data = tk.datasets.digits(seed=seed)
    known = data.train.labels < 5
    train = data.train.inputs[known].flatten(1)
    unseen = data.test.inputs[data.test.labels >= 5].flatten(1)
    encode, decode = autoencoder(train, LATENT, NOISE, seed, steps)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        latents = encode(train)
    noise = torch.randn(2000, LATENT, generator=generator) * latents.std()
    atoms = dictionaries(Flow.of_autoencoder(encode, decode), noise, latents, generator=generator)
    told = probe(encode, decode, unseen, atoms, COUNTS)
    return {"plain": told.plain, "sizes": dict(told.sizes), "errors": dict(told.errors)}


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


def novelty(seed: int, steps: int, on_mnist: bool) -> dict[str, Any]:
    """All scores on digits never shown, on noise and on turned digits."""
    data = tk.datasets.mnist() if on_mnist else tk.datasets.digits(seed=seed)
    side = 28 if on_mnist else 8
    train = data.train.inputs[data.train.labels < 5].flatten(1)[:20_000]
    known = data.test.inputs[data.test.labels < 5].flatten(1)[:2000]
    others = data.test.inputs[data.test.labels >= 5].flatten(1)[:2000]
    features = side**2
    encode, decode = autoencoder(train, LATENT, NOISE, seed, steps, features)
    generator = torch.Generator().manual_seed(seed)
    scores = NoveltyScores(encode, decode, train[:2000], steps=30)
    noise = train.mean() + train.std() * torch.randn(2000, features, generator=generator)
    turned = torch.rot90(known.view(-1, side, side), 1, (1, 2)).flatten(1)
    found: dict[str, Any] = {"data": "MNIST" if on_mnist else "digits"}
    for name, novel in (("5 to 9", others), ("noise", noise), ("turned", turned)):
        told = scores.compare(known, novel)
        found[name] = {each: [told.auroc[each], told.fpr95[each]] for each in told.auroc}
    return found


def autoencoder(
    inputs: Tensor, width: int, noise: float, seed: int, steps: int, features: int = 64
) -> tuple[nn.Module, nn.Module]:
    """A perceptron of two hidden layers on each side, trained to take ``noise`` away."""
    torch.manual_seed(AUTOENCODER_SEED + seed)
    hidden = 256 if features > 64 else 128
    sizes = (features, hidden, hidden, width)
    encode, decode = perceptron(sizes), perceptron(sizes[::-1])
    optimizer = torch.optim.Adam([*encode.parameters(), *decode.parameters()], lr=1e-3)
    for _ in range(steps):
        few = len(inputs) <= 128
        batch = inputs if few else inputs[torch.randint(len(inputs), (128,))]
        optimizer.zero_grad()
        noisy = batch + noise * torch.randn_like(batch)
        (decode(encode(noisy)) - batch).square().mean().backward()
        optimizer.step()
    return encode.eval(), decode.eval()


def perceptron(sizes: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with tanh between them."""
    layers: list[nn.Module] = []
    for width, following in pairwise(sizes):
        layers += [nn.Linear(width, following), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def table(results: dict[str, dict[str, Any]]) -> str:
    """All tables, as far as there are results for them."""
    made = {
        "size": (shown.memory_table, "Attractors from training starts, 8 × 8 digits:"),
        "probe": (shown.probe_table, "Digits 5 to 9 by few atoms, autoencoder of 0 to 4:"),
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
