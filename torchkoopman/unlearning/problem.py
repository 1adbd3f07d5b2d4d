"""The problem of forgetting: an affine operator, class statistics, and where classes shall go."""

from __future__ import annotations

import copy
import operator
from dataclasses import replace
from typing import TYPE_CHECKING, SupportsIndex

import torch
from torch import Tensor, nn

from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.operators import Dense
from torchkoopman.koopman.surrogate import Surrogate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torchkoopman.koopman.coordinates import Coordinates
    from torchkoopman.koopman.edits import Edit, Target
    from torchkoopman.observe.class_moments import LabelledMoments

_WIDTH = 1e-12
"""A class whose largest variance is a smaller share of its mean's square is one point."""


def affine_copy(surrogate: Surrogate) -> Surrogate:
    """A copy over the first and last layer whose latent states have the constant in front."""
    if surrogate.statistics is None or not surrogate.statistics.classes:
        said = [note for note in surrogate.record.notes if note.startswith("no class statistics")]
        raise ValueError(
            "the surrogate has no class statistics, so it cannot tell classes apart. Fit it with "
            "labels: `with probe.labels(y): model(x)`, or a loader of (x, y) for tk.fit, y being "
            f"integers.{' Its record says: ' if said else ''}{' '.join(said)}"
        )
    span, frames = surrogate.span, surrogate.frames()
    K, observables = surrogate.operator.matrix(1.0).detach(), surrogate.observables
    statistics, evidence = surrogate.statistics, surrogate.evidence
    if isinstance(observables, LearntObservables) and not observables.constant:
        observables = observables.with_constant()
        eye = torch.eye(len(K) + 1).to(K)
        lift = eye[:, 1:], eye[:, 0]
        K = lift[0] @ K @ lift[0].T + torch.outer(eye[0], eye[0])
        statistics = statistics.affine({"start": lift, "end": lift})
        evidence = None if evidence is None else evidence.with_constant()
    operator = Dense(len(K), constant=True).to(K).start_from(K)
    ends = replace(span, layers=(span.layers[0], span.layers[-1]), times=(0.0, 1.0))
    parts = [frames[0], frames[-1]], observables, operator, surrogate.record, statistics
    return Surrogate(ends, *copy.deepcopy(parts), evidence)  # the same rows, of some megabytes


def edited_copy(
    surrogate: Surrogate,
    base: Surrogate,
    matrix: Tensor,
    edit: Edit,
    last: Coordinates | None = None,
) -> Surrogate:
    """What an edit makes of a surrogate: ``base``, its affine copy, with another operator.

    ``base`` goes into it and is of no further use. ``last`` are the last layer's coordinates where
    the edit changes them.
    """
    first, end = base.frames()
    operator = Dense(len(matrix), constant=True).to(base.operator.matrix(1.0)).start_from(matrix)
    return Surrogate(
        base.span,
        [first, end if last is None else last],
        base.observables,
        operator.requires_grad_(False),
        base.record,
        base.statistics,
        base.evidence,
        (*surrogate.edits, edit),
        surrogate,
    )


def wanted(classes: Iterable[SupportsIndex] | SupportsIndex) -> list[int]:
    """The classes to forget, each once, in order; one by itself is taken too.

    Raises:
        TypeError: not integers.
    """
    try:
        return [operator.index(classes)]  # type: ignore[arg-type]
    except TypeError:
        pass
    try:
        return sorted({operator.index(each) for each in classes})  # type: ignore[union-attr]
    except TypeError as error:
        raise TypeError(
            f"classes={classes!r} are no class numbers; give integers, such as [2, 5]."
        ) from error


def partition(
    statistics: LabelledMoments, classes: Iterable[int], latent: int, halved: int = 0
) -> tuple[list[int], list[int]]:
    """The forgotten and the retained classes, once it is certain that an edit exists.

    ``halved`` of the classes take two constraints each.
    """
    forgotten, seen = wanted(classes), statistics.classes
    retained = [c for c in seen if c not in forgotten]
    unknown = [c for c in forgotten if c not in seen]
    if not forgotten or unknown:
        why = f"the fit has never seen {unknown}" if unknown else "there is nothing to forget"
        raise ValueError(
            f"classes={forgotten} to forget: {why}. It has seen {list(seen)}; give some of those."
        )
    if not retained:
        raise ValueError(f"forgetting {forgotten} leaves no class; the fit has seen {list(seen)}.")
    constraints = len(seen) + halved
    if latent < constraints + 1:
        less = ", give halves=False" if halved else ""
        raise ValueError(
            f"{len(seen)} classes are {constraints} constraints, which need a latent space of at "
            f"least {constraints + 1}; this one has {latent}. Fit with a larger latent or more "
            f"observables{less}."
        )
    return forgotten, retained


def points_of(statistics: LabelledMoments, classes: Iterable[int], halves: Iterable[int]) -> Tensor:
    """Start states that stand for classes, as columns, ``(latent, points)``, float64.

    A class stands for itself by its mean; one in ``halves`` by two points, the mean plus and minus
    one standard deviation along its widest direction, unless it has no width.
    """
    columns, halved = [], set(halves)
    for c in classes:
        moments = statistics.by_class[c]
        mean = moments.mean("start")
        variances, directions = torch.linalg.eigh(moments.cov("start", "start"))
        wide = c in halved and bool(variances[-1] > _WIDTH * mean.square().sum())
        step = variances[-1].clamp(min=0).sqrt() * directions[:, -1]
        columns += [mean + step, mean - step] if wide else [mean]
    return torch.stack(columns, 1)


def aims_of(
    statistics: LabelledMoments, images: Tensor, retained: list[int], target: Target
) -> Tensor:
    """T for each image of a point as columns, ``(latent, points)``, in the end state's space."""
    ends = torch.stack([statistics.by_class[c].mean("end") for c in retained], 1)
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
