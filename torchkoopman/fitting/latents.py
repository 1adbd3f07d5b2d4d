"""Closed forms on the latent states of paths: their moments, K's start, and its final polish."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from torchkoopman.fitting.losses import LossWeights, koopman_losses
from torchkoopman.koopman.operators import Dense
from torchkoopman.koopman.regression import koopman_matrix
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.moments import Moments, layer_pairs

if TYPE_CHECKING:
    from torch import Tensor

    from torchkoopman.koopman.learnt import LearntObservables
    from torchkoopman.koopman.operators import Operator

_CHUNK = 4096
"""Rows encoded at a time."""
_COMPARED = 2048
"""Rows on which the polished operator must beat the learnt one."""


@torch.no_grad()
def span_moments(observables: LearntObservables, paths: Tensor, labels: Tensor) -> LabelledMoments:
    """Moments of the latent states at the ``"start"`` and the ``"end"`` of the span, per class.

    Args:
        observables: the encoder.
        paths: ``(rows, layers, coordinates)``.
        labels: class of each row, ``(rows,)``; -1 where unknown.
    """
    moments = LabelledMoments(layer_pairs(("start", "end"), "ends"))
    for part, classes in zip(torch.split(paths, _CHUNK), torch.split(labels, _CHUNK), strict=True):
        start, end = observables.encode(part[:, [0, -1]]).unbind(1)
        moments.update({"start": start, "end": end}, classes)
    return moments


@torch.no_grad()
def step_matrix(
    observables: LearntObservables, operator: Operator, paths: Tensor, ridge: float
) -> Tensor:
    """The least-squares matrix of one of the operator's steps, ``(latent, latent)``.

    A step leads from each layer to the next, or from the first to the last if the operator takes
    the span in one.
    """
    moments = Moments(layer_pairs(("start", "end"), "ends"))
    for part in torch.split(paths, _CHUNK):
        latents = observables.encode(part[:, [0, -1]] if operator.steps == 1 else part)
        start, end = latents[:, :-1].flatten(0, 1), latents[:, 1:].flatten(0, 1)
        moments.update({"start": start, "end": end})
    return koopman_matrix(moments, ridge, constant=isinstance(operator, Dense))


@torch.no_grad()
def polish(
    observables: LearntObservables,
    operator: Operator,
    paths: Tensor,
    weights: LossWeights,
    ridge: float,
) -> Operator:
    """The operator with the closed form in its place, if that predicts the paths' states better.

    Least squares on latent states is not least squares on decoded ones, so it often does not, least
    of all where one step stands for all layers. Only a dense operator has a closed form; others
    come back as they are.
    """
    if not isinstance(operator, Dense):
        return operator
    candidate = copy.deepcopy(operator)
    candidate.start_from(step_matrix(observables, operator, paths, ridge))
    before, after = (
        koopman_losses(paths[:_COMPARED], observables, each, weights)["state"]
        for each in (operator, candidate)
    )
    return candidate if after < before else operator
