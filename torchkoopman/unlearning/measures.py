"""What an audit measures on a classifier's answers and states: plain functions of tensors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import Tensor

CHANCE = 0.5
"""Balanced accuracy of a detector that knows nothing."""


@dataclass(frozen=True)
class Detection:
    """How well the forgotten classes are told from the others, on rows not used to learn it."""

    probe: float
    """Balanced accuracy of a linear probe (logistic regression); ½ is chance."""
    neighbours: float
    """Balanced accuracy of a vote of the nearest neighbours; ½ is chance."""


@dataclass(frozen=True)
class Membership:
    """A membership attack by the entropy of the answers (after Chundawat et al. 2023)."""

    forgotten: float
    """Share of the forgotten classes' training samples that the attack takes for members. A network
    that never saw them gives the value to compare with."""
    strength: float
    """Area under the attack's ROC on retained samples, train against test: at ½ it cannot tell
    members at all, and ``forgotten`` means nothing."""


def among(labels: Tensor, classes: Collection[int]) -> Tensor:
    """Which labels are of these classes, boolean, ``(samples,)``."""
    return torch.isin(labels, torch.tensor(sorted(classes), device=labels.device))


def class_accuracies(logits: Tensor, labels: Tensor) -> dict[int, float]:
    """Class → share of its samples whose largest logit is it."""
    right = (logits.argmax(1) == labels).double()
    return {c: right[labels == c].mean().item() for c in torch.unique(labels).tolist()}


def divergence(reference: Tensor, logits: Tensor) -> float:
    """Mean Kullback–Leibler divergence KL(reference ‖ other) of the answers, in nats.

    Args:
        reference: logits, ``(samples, classes)``.
        logits: of the same samples.
    """
    known, guess = reference.double().log_softmax(1), logits.double().log_softmax(1)
    return (known.exp() * (known - guess)).sum(1).mean().item()


def entropies(logits: Tensor) -> Tensor:
    """Entropy of each answer, in nats, ``(samples,)``."""
    log = logits.double().log_softmax(1)
    return -(log.exp() * log).sum(1)


def membership(seen: Tensor, unseen: Tensor, forgotten: Tensor) -> Membership:
    """Attack a model by the entropy of its answers.

    A logistic regression learns to tell ``seen`` from ``unseen`` and is asked about ``forgotten``.

    Args:
        seen: logits of retained training samples, ``(samples, classes)``.
        unseen: logits of retained test samples.
        forgotten: logits of the forgotten classes' training samples.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    known = torch.cat([_surprise(seen), _surprise(unseen)])[:, None].numpy()
    member = torch.cat([torch.ones(len(seen)), torch.zeros(len(unseen))]).numpy()
    attack = LogisticRegression(class_weight="balanced").fit(known, member)
    guesses = attack.predict(_surprise(forgotten)[:, None].numpy())
    return Membership(
        float(guesses.mean()), float(roc_auc_score(member, attack.decision_function(known)))
    )


def detection(
    train: Tensor, train_target: Tensor, test: Tensor, test_target: Tensor, neighbours: int = 10
) -> Detection:
    """How well a probe and its nearest neighbours tell target rows from the others.

    Args:
        train: states to learn from, ``(rows, features)``.
        train_target: boolean, ``(rows,)``.
        test: states to judge on.
        test_target: boolean.
        neighbours: that vote, each weighted so that both kinds count alike.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.neighbors import NearestNeighbors

    centre, spread = train.mean(0), train.std(0).clamp(min=1e-12)
    x, unseen = ((each - centre) / spread for each in (train, test))
    y, truth = train_target.numpy(), test_target.numpy()
    probe = LogisticRegression(class_weight="balanced", max_iter=300)
    with warnings.catch_warnings():
        # Separable states have no finite optimum; what the probe has by then is what it reports.
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(x.numpy(), y)
    near = NearestNeighbors(n_neighbors=min(neighbours, len(x))).fit(x.numpy())
    votes = y[near.kneighbors(unseen.numpy(), return_distance=False)]
    # Balanced, as the probe is: a vote counts by the inverse of its kind's share.
    shares = votes.mean(1) / y.mean(), (1 - votes.mean(1)) / (1 - y.mean())
    return Detection(
        float(balanced_accuracy_score(truth, probe.predict(unseen.numpy()))),
        float(balanced_accuracy_score(truth, shares[0] > shares[1])),
    )


def _surprise(logits: Tensor) -> Tensor:
    """Log-entropy: entropies of a sure classifier span many orders of magnitude."""
    return (entropies(logits).cpu() + 1e-12).log()
