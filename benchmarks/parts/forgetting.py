"""Forgetting: what the closed-form edit leaves, keeps and costs, against retrained networks.

Yin-Yang's dots on every seed, for both surrogates, with the full audit. Every MNIST digit in turn
and some together: accuracies on every seed, the full audit with a retrained network for each digit
on one of them. Retrained networks get the neutral head row too, since otherwise a logit that was
never trained may be anything.
"""

from __future__ import annotations

import copy
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

import torchkoopman as tk
from benchmarks.models import Fitted, fitted
from benchmarks.networks import class_accuracies, train
from benchmarks.parts.forgetting_tables import table as table
from benchmarks.rivals import erased, retargeted
from benchmarks.tables import folder, seeds, tasks
from torchkoopman.datasets import Labelled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from benchmarks.networks import ResidualMLP
    from benchmarks.tasks import Task

TOGETHER = ((3, 8), (0, 5, 9))
"""Digits forgotten together."""
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
AGAIN = "another retrained"
NEUTRAL, LEACE, AUTHORS, BARE = (
    "neutral row only",
    "LEACE",
    "the paper's edit",
    "operator edit only",
)
RETRAINED_SEED = 5000


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Yin-Yang by seed; MNIST by seed, and by what is forgotten."""
    found: dict[str, Callable[[], dict[str, Any]]] = {
        f"yinyang-{seed}": partial(dots, seed, quick) for seed in seeds(quick)
    }
    if "mnist" not in tasks(quick):
        return found
    found |= {f"mnist-{seed}": partial(digits, seed) for seed in seeds(quick)}
    for number, classes in enumerate(sets()):
        name = "-".join(map(str, classes))
        seed = seeds(quick)[number % len(seeds(quick))]
        found[f"mnist-audit-{name}"] = partial(digit_audit, classes, seed)
    return found


def sets() -> list[tuple[int, ...]]:
    """What is forgotten on MNIST."""
    return [*((digit,) for digit in range(10)), *TOGETHER]


def dots(seed: int, quick: bool) -> dict[str, Any]:
    """Forget Yin-Yang's dots, with both surrogates."""
    known, classes = fitted("yinyang", seed, quick, folder(quick)), (2,)
    again = retrained(known.task, classes, RETRAINED_SEED + 500 + seed)
    other = again.without(known.data.train.loader(known.task.batch), classes, known.model)
    references = retrained(known.task, classes, RETRAINED_SEED + seed)
    audits = {
        method: audited(known, method, classes, references, {AGAIN: other})
        for method in ("EDMD", "autoencoder")
    }
    return {
        "audits": {method: audit.card() for method, audit in audits.items()},
        "strength": {method: strengths(known, method, classes) for method in audits},
        "reverted": all(reverts(known, method, classes) for method in audits),
    }


def digits(seed: int) -> dict[str, Any]:
    """Forget each digit, and some together: accuracies by class and the time of the edit."""
    known = fitted("mnist", seed, False, folder(False))
    surrogate, test = known.surrogates["autoencoder"], known.data.test
    found = {"swap": class_accuracies(tk.swap(known.model, surrogate), test)}
    milliseconds = {}
    for classes in sets():
        name = "-".join(map(str, classes))
        start = time.perf_counter()
        edited = tk.unlearn(surrogate, classes, model=known.model)
        milliseconds[name] = 1000 * (time.perf_counter() - start)
        found[name] = class_accuracies(tk.swap(known.model, edited), test)
    return {"accuracies": found, "milliseconds": milliseconds}


def digit_audit(classes: tuple[int, ...], seed: int) -> dict[str, Any]:
    """The full audit of some digits on one seed."""
    known = fitted("mnist", seed, False, folder(False))
    references = retrained(known.task, classes, RETRAINED_SEED + seed)
    audit = audited(known, "autoencoder", classes, references, {})
    return {"seed": seed, "audits": {"autoencoder": audit.card()}, "text": str(audit)}


def audited(
    known: Fitted,
    method: str,
    classes: Sequence[int],
    references: tk.Retraining,
    baselines: dict[str, nn.Module],
) -> tk.results.Audit:
    """The audit of the edit, with its rivals beside it."""
    model, surrogate = known.model, known.surrogates[method]
    swapped = tk.swap(model, surrogate)
    neutral = copy.deepcopy(swapped)
    neutral.head = tk.neutral_head(model.head, classes)
    surrogates = {
        "edited": tk.unlearn(surrogate, classes, model=model),
        "unedited swap": surrogate,
        NEUTRAL: surrogate,
        BARE: tk.unlearn(surrogate, classes),
        LEACE: erased(surrogate, classes),
        AUTHORS: retargeted(surrogate, classes),
    }
    rivals = {name: tk.swap(model, surrogates[name]) for name in (BARE, LEACE, AUTHORS)}
    audit = tk.audit(
        model,
        tk.swap(model, surrogates["edited"]),
        classes,
        known.data.train.loader(128, seed=0),
        known.data.test.loader(1000),
        retrained=references,
        unedited=swapped,
        baselines={NEUTRAL: neutral, **rivals, **baselines},
        surrogates=surrogates,
    )
    print(f"{method}\n{audit}\n", flush=True)
    return audit


def retrained(task: Task, classes: Sequence[int], seed: int) -> tk.Retraining:
    """How the task's network is made and trained without some classes."""

    def fresh() -> ResidualMLP:
        torch.manual_seed(seed)
        return task.fresh()

    def learn(model: nn.Module, batches: Any) -> None:
        inputs, labels = (torch.cat(each) for each in zip(*batches, strict=True))
        train(model, Labelled(inputs, labels), **task.training, seed=seed)
        model.head = tk.neutral_head(model.head, classes)  # type: ignore[arg-type]

    return tk.Retraining(fresh, learn)


def strengths(known: Fitted, method: str, classes: Sequence[int]) -> dict[str, list[float]]:
    """Strength of the bare operator edit → accuracy by class."""
    surrogate, test = known.surrogates[method], known.data.test
    found = {}
    for strength in STRENGTHS:
        edited = tk.unlearn(surrogate, classes, strength=strength)
        found[str(strength)] = class_accuracies(tk.swap(known.model, edited), test)
    return found


def reverts(known: Fitted, method: str, classes: Sequence[int]) -> bool:
    """Whether undoing the edit gives the swap's own answers, bit by bit."""
    surrogate, inputs = known.surrogates[method], known.data.test.inputs
    edited = tk.unlearn(surrogate, classes, model=known.model)
    with torch.no_grad():
        answers = [tk.swap(known.model, each)(inputs) for each in (surrogate, tk.undo(edited))]
    return torch.equal(*answers)
