"""The problem of forgetting: an affine operator, class statistics, and where classes shall go."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.operators import Dense
from torchkoopman.koopman.surrogate import Surrogate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torchkoopman.koopman.edits import Target
    from torchkoopman.observe.class_moments import LabelledMoments


def affine_copy(surrogate: Surrogate) -> Surrogate:
    """A copy over the first and last layer whose latent states have the constant in front."""
    if surrogate.statistics is None or not surrogate.statistics.classes:
        raise ValueError(
            "the surrogate has no class statistics, so it cannot tell classes apart. Fit it with "
            "labels: `with probe.labels(y): model(x)`, or a loader of (x, y) for tk.fit."
        )
    span, frames = surrogate.span, surrogate.frames()
    K, observables = surrogate.operator.matrix(1.0).detach(), surrogate.observables
    statistics = surrogate.statistics
    if isinstance(observables, LearntObservables) and not observables.constant:
        observables = observables.with_constant()
        eye = torch.eye(len(K) + 1).to(K)
        lift = eye[:, 1:], eye[:, 0]
        K = lift[0] @ K @ lift[0].T + torch.outer(eye[0], eye[0])
        statistics = statistics.affine({"start": lift, "end": lift})
    operator = Dense(len(K), constant=True).to(K).start_from(K)
    ends = replace(span, layers=(span.layers[0], span.layers[-1]), times=(0.0, 1.0))
    kept, observables, operator = copy.deepcopy(([frames[0], frames[-1]], observables, operator))
    return Surrogate(ends, kept, observables, operator, surrogate.record, statistics)


def partition(
    statistics: LabelledMoments, classes: Iterable[int], latent: int
) -> tuple[list[int], list[int]]:
    """The forgotten and the retained classes, once it is certain that an edit exists."""
    forgotten, seen = sorted(set(classes)), statistics.classes
    retained = [c for c in seen if c not in forgotten]
    unknown = [c for c in forgotten if c not in seen]
    if not forgotten or unknown:
        raise ValueError(
            f"classes={forgotten} to forget: {unknown or 'none'} of them never seen in the fit. "
            f"It has seen {list(seen)}; give some of those."
        )
    if not retained:
        raise ValueError(f"forgetting {forgotten} leaves no class; the fit has seen {list(seen)}.")
    if latent < len(seen) + 1:
        raise ValueError(
            f"{len(seen)} classes are {len(seen)} constraints, which need a latent space of at "
            f"least {len(seen) + 1}; this one has {latent}. Fit with a larger latent or more "
            "observables."
        )
    return forgotten, retained


def aims_of(
    statistics: LabelledMoments,
    operator: Tensor,
    forgotten: list[int],
    retained: list[int],
    target: Target,
) -> Tensor:
    """T for each forgotten class as columns, ``(latent, forgotten)``, in the end state's space."""
    ends = torch.stack([statistics.by_class[c].mean("end") for c in retained], 1)
    images = torch.stack([operator @ statistics.by_class[c].mean("start") for c in forgotten], 1)
    distances = torch.cdist(images.T, ends.T)
    match target:
        case "softmix":
            squares = distances.square()
            scale = squares.median(1, keepdim=True).values.clamp(min=torch.finfo().tiny)
            weights = torch.softmax(-squares / scale, 1)
        case "nearest":
            weights = nn.functional.one_hot(distances.argmin(1), len(retained)).double()
        case "centroid":
            weights = torch.full_like(distances, 1 / len(retained))
        case _:
            raise ValueError(f"target={target!r}; choose 'softmix', 'nearest' or 'centroid'.")
    return ends @ weights.T
