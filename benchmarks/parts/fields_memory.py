"""What the attractors of autoencoders remember, and how fast orbits near them come closer."""

from __future__ import annotations

from statistics import median
from typing import Any

import torch
from torch import Tensor

import torchkoopman as tk
from benchmarks.parts.fields_networks import LATENT, NOISE, autoencoder
from torchkoopman.flows import Flow, chamfer, dictionary_rank, memorization, prototype_errors

DIGITS, MNIST = "8 × 8 digits", "MNIST"
STARTS = 2000
"""Of each kind at most, for the attractors."""
SPLIT = 300
"""Samples whose errors are split."""
ALIKE = 0.99
"""Cosine from which the paper counts two attractors as one."""


def memory(
    size: int, width: int, noise: float, seed: int, steps: int, mnist: bool = False
) -> dict[str, Any]:
    """One autoencoder's attractors, from training samples, unseen ones and noise."""
    data = tk.datasets.mnist() if mnist else tk.datasets.digits(seed=seed)
    train, unseen = data.train.inputs.flatten(1), data.test.inputs.flatten(1)
    generator = torch.Generator().manual_seed(seed)
    # The split of MNIST is the same for all seeds, and that of the digits is shuffled.
    own = torch.randperm(len(train), generator=generator) if mnist else torch.arange(len(train))
    train = train[own[:size]]
    encode, decode = autoencoder(train, width, noise, seed, steps, train.shape[1])
    flow = Flow.of_autoencoder(encode, decode)
    with torch.no_grad():
        errors = {
            f"{name}error": (decode(encode(x)) - x).square().mean().item()
            for name, x in (("", unseen), ("train ", train))
        }
        latents = {"train": encode(train[:STARTS]), "test": encode(unseen[:STARTS])}
    latents["noise"] = torch.randn(STARTS, width, generator=generator)
    found: dict[str, Any] = {"data": MNIST if mnist else DIGITS, "size": size, "width": width}
    found |= {"noise": noise, "unseen": len(unseen), **errors}
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
            "by cosine": count_by_cosine(told.attractors),
            "recovered": int(kept.recovered.sum()),
            "coefficient": kept.coefficient if len(points[name]) else None,
            "null": kept.null.mean().item(),
            "recovered of unseen": int(kept.unseen_recovered.sum()),
            "unseen like a training sample": (kept.null >= kept.threshold).double().mean().item(),
            "rank": dictionary_rank(points[name]),
            **rates(flow, told),
        }
    if len(points["train"]) and len(points["noise"]):
        found["chamfer"] = chamfer(points["train"], points["noise"])
    return found


def split(size: int, seed: int, steps: int) -> dict[str, Any]:
    """Errors of trained and unseen digits: what attractors miss, and how far away they are.

    Per number, medians over the inputs that end at an attractor; beside them the error of the mean
    training sample, for every input the same.
    """
    data = tk.datasets.digits(seed=seed)
    train, unseen = data.train.inputs.flatten(1)[:size], data.test.inputs.flatten(1)
    encode, decode = autoencoder(train, LATENT, NOISE, seed, steps)
    found: dict[str, Any] = {"size": size}
    for name, inputs in (("trained", train[:SPLIT]), ("unseen", unseen[:SPLIT])):
        told = prototype_errors(encode, decode, inputs, steps=3000)
        apart = (inputs - train.mean(0))[told.attracted].double().square().sum(1)
        parts = {
            "reconstruction": told.reconstruction, "prototype": told.prototype,
            "coverage": told.coverage, "mean sample": apart,
        }  # fmt: skip
        medians = {
            part: (each / inputs.shape[1]).median().item() if len(each) else None
            for part, each in parts.items()
        }
        found[name] = {"attracted": told.attracted.double().mean().item(), **medians}
    return found


def count_by_cosine(points: Tensor) -> int:
    """Attractors as the paper counts them: those that are like none before, cosine ``ALIKE``."""
    unit = torch.nn.functional.normalize(points.flatten(1).double(), dim=1)
    distinct: list[Tensor] = []
    for each in unit:
        if not distinct or (torch.stack(distinct) @ each).max() < ALIKE:
            distinct.append(each)
    return len(distinct)


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
