"""What the attractors of an autoencoder remember: single training samples, or what they share.

After Fumero et al., latent vector fields of autoencoders. Each number stands beside its null: what
unseen samples give, which no field has remembered.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchkoopman.tables import Table, Tabular

_ROWS = 2**12
"""Rows compared at a time."""
_NUMBERS = 2**24
"""Cosines computed at a time: 128 MB."""


@dataclass(frozen=True)
class Memorization(Tabular):
    """How like training samples decoded attractors are, and which samples are among them.

    Example:
        >>> told = tk.flows.memorization(torch.eye(3)[:1], torch.eye(3), torch.ones(1, 3))
        >>> told.coefficient, round(told.null.item(), 3)
        (1.0, 0.577)
    """

    cosines: Tensor
    """Cosine of each decoded attractor with the training sample most like it; ``(attractors,)``."""
    nearest: Tensor
    """Number of that sample; ``(attractors,)``."""
    null: Tensor
    """Cosine of each unseen sample with the training sample most like it; ``(unseen,)``, empty
    where none were given."""
    recovered: Tensor
    """Whether an attractor decodes to a training sample; bool, ``(train,)``."""
    unseen_recovered: Tensor
    """Whether an attractor decodes to an unseen sample, by the same rule: what chance gives; bool,
    ``(unseen,)``."""
    threshold: float
    """From this cosine on."""

    @property
    def coefficient(self) -> float:
        """Mean of the cosines; NaN without attractors."""
        return self.cosines.double().mean().item()

    def table(self) -> Table:
        """The coefficient and the samples recovered, each beside its null."""
        rows = [["decoded attractors", *_moments(self.cosines)]]
        if len(self.null):
            rows.append(["unseen samples (null)", *_moments(self.null)])
        below = [
            f"{_count(self.recovered, 'training')} are decoded attractors "
            f"(cosine of {self.threshold:g} or more)"
        ]
        if len(self.unseen_recovered):
            below.append(f"{_count(self.unseen_recovered, 'unseen')} are, too (null)")
        head = ["nearest training sample of", "number", "mean cosine", "least", "most"]
        return Table(head, rows, below=below)


def memorization(
    decoded: Tensor, train: Tensor, unseen: Tensor | None = None, *, threshold: float = 0.99
) -> Memorization:
    """How like training samples the decoded attractors of an autoencoder are.

    The paper writes the smallest cosine where the largest is meant. Cosines of images are near 1
    for unlike images, too, so the null must stand beside: give ``unseen``. A sample is recovered
    where an attractor has it as the nearest of its own set, with a cosine of ``threshold`` or more;
    compare the share of the training samples with that of the unseen ones.

    Example:
        >>> train, unseen = torch.eye(4), torch.ones(1, 4)
        >>> told = tk.flows.memorization(2 * train[:1], train, unseen)
        >>> told.recovered.tolist(), told.unseen_recovered.tolist()
        ([True, False, False, False], [False])

    Args:
        decoded: attractors in the space of the inputs, ``(attractors, …)``.
        train: ``(train, …)``.
        unseen: samples that the autoencoder was not trained on, ``(unseen, …)``.
        threshold: cosine from which a decoded attractor is a sample.

    Raises:
        ValueError: samples of different sizes, or no training samples.
    """
    _require_alike(train, decoded=decoded, unseen=unseen)
    _require_finite("memorization()", train, decoded, unseen)
    if not -1 <= threshold <= 1:
        raise ValueError(f"memorization() got threshold={threshold}; a cosine is at most 1.")
    cosines, nearest = _most_alike(decoded, train)
    recovered = _recovered(cosines, nearest, threshold, len(train))
    null, unseen_recovered = train.new_zeros(0), recovered[:0]
    if unseen is not None and len(unseen):
        null = _most_alike(unseen, train)[0]
        unseen_recovered = _recovered(*_most_alike(decoded, unseen), threshold, len(unseen))
    return Memorization(cosines, nearest, null, recovered, unseen_recovered, threshold)


def dictionary_rank(points: Tensor, share: float = 0.9) -> int:
    """Principal components that hold a share of the points' variance, such as decoded attractors'.

    Example:
        >>> tk.flows.dictionary_rank(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.1]]))
        1

    Args:
        points: ``(n, …)``; 0 for fewer than two.
        share: of the variance, between 0 and 1.

    Raises:
        ValueError: another share.
    """
    if not 0 < share <= 1:
        raise ValueError(f"dictionary_rank() got share={share}; give more than 0 and at most 1.")
    _require_finite("dictionary_rank()", points)
    if len(points) < 2:
        return 0
    flat = points.flatten(1).double()
    variances = torch.linalg.svdvals(flat - flat.mean(0)).square()
    total = variances.sum()
    if total == 0:
        return 0
    held = variances.cumsum(0) / total
    return min(int((held < share * (1 - 1e-12)).sum()) + 1, len(variances))


def chamfer(first: Tensor, second: Tensor) -> float:
    """Symmetric Chamfer distance of two sets: the mean distance to the other's nearest point.

    The mean of both directions, in units of the points.

    Example:
        >>> tk.flows.chamfer(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0]]))
        0.25

    Raises:
        ValueError: an empty set, or points of different sizes.
    """
    a, b = first.flatten(1).double(), second.flatten(1).double()
    if not len(a) or not len(b) or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"chamfer() got sets of shapes {tuple(first.shape)} and {tuple(second.shape)}; give "
            "one point or more in each, of one size."
        )
    _require_finite("chamfer()", a, b)
    there = torch.cat([torch.cdist(part, b).amin(1) for part in torch.split(a, _ROWS)]).mean()
    back = torch.cat([torch.cdist(part, a).amin(1) for part in torch.split(b, _ROWS)]).mean()
    return ((there + back) / 2).item()


def _require_alike(train: Tensor, **others: Tensor | None) -> None:
    if not len(train):
        raise ValueError("memorization() got no training samples to compare with.")
    for name, other in others.items():
        if other is not None and other.shape[1:] != train.shape[1:]:
            raise ValueError(
                f"memorization() got {name}= of shape {tuple(other.shape)} and train= of shape "
                f"{tuple(train.shape)}; all but the first numbers must be the same. Decode the "
                "attractors before."
            )


def _require_finite(call: str, *sets: Tensor | None) -> None:
    """Refuse points that are not finite, as states of orbits that diverged are."""
    bad = sum(int((~each.flatten(1).isfinite().all(1)).sum()) for each in sets if each is not None)
    if bad:
        raise ValueError(f"{call} got {bad} points that are not finite; leave them out.")


def _most_alike(samples: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Largest cosine with one of the others, and its number."""
    if not len(samples):
        empty = others.new_zeros(0)
        return empty, empty.long()
    unit = torch.nn.functional.normalize(others.flatten(1).double(), dim=1)
    own = torch.nn.functional.normalize(samples.flatten(1).double(), dim=1)
    rows = max(1, _NUMBERS // len(unit))
    best = [(part @ unit.T).max(1) for part in torch.split(own, rows)]
    return torch.cat([b.values for b in best]), torch.cat([b.indices for b in best])


def _recovered(cosines: Tensor, nearest: Tensor, threshold: float, samples: int) -> Tensor:
    """Which samples are nearest to something by a cosine of the threshold or more."""
    found = torch.zeros(samples, dtype=torch.bool, device=cosines.device)
    found[nearest[cosines >= threshold]] = True
    return found


def _count(recovered: Tensor, kind: str) -> str:
    share = recovered.double().mean()
    return f"{int(recovered.sum())} of {len(recovered)} {kind} samples ({share:.2%})"


def _moments(values: Tensor) -> list[str]:
    if not len(values):
        return ["0", "–", "–", "–"]
    return [str(len(values)), *(f"{v:.4f}" for v in (values.mean(), values.min(), values.max()))]
