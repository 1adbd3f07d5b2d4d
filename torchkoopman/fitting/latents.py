"""Closed forms on the latent states of paths: their moments, K's start, and its final polish."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from torchkoopman.koopman.operators import Dense
from torchkoopman.koopman.regression import koopman_matrix
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs
from torchkoopman.spectra.evidence import Evidence

if TYPE_CHECKING:
    from torch import Tensor

    from torchkoopman.fitting.replay import Reservoir
    from torchkoopman.koopman.learnt import LearntObservables
    from torchkoopman.koopman.observables import Dictionary
    from torchkoopman.koopman.operator import Operator

_CHUNK = 4096
"""Rows encoded at a time."""
_EVIDENCE_BYTES = 8 * 2**20
"""Memory of the rows that eigenpairs are judged by: thousands at usual latent sizes."""


@torch.no_grad()
def span_moments(
    observables: LearntObservables | Dictionary, paths: Tensor, labels: Tensor
) -> LabelledMoments:
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
def evidence_of(
    observables: LearntObservables | Dictionary, reservoir: Reservoir
) -> Evidence | None:
    """Latent states at both ends of paths the fit never trained on, to test eigenpairs with.

    None if so few rows came that none was held out.
    """
    most = _EVIDENCE_BYTES // (2 * 4 * observables.latent)
    paths, samples = reservoir.judging(most)
    if len(paths) == 0:
        return None
    start, end = observables.encode(paths[:, [0, -1]]).unbind(1)
    # Of a learnt encoder the first coordinates are the state and something more, a function of it.
    first = int(observables.constant)
    state = slice(first, min(first + observables.features, observables.latent))
    return Evidence(start, end, state, False, samples)


@torch.no_grad()
def step_matrix(
    observables: LearntObservables | Dictionary, operator: Operator, paths: Tensor, ridge: float
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
def polished(
    observables: LearntObservables | Dictionary, operator: Operator, paths: Tensor, ridge: float
) -> Operator | None:
    """A copy of the operator that is the closed form on the paths' latent states.

    Least squares on latent states is not least squares on decoded ones, so this need not predict
    better, least of all where one step stands for all layers. Only a dense operator has a closed
    form; for others there is none.
    """
    if not isinstance(operator, Dense):
        return None
    return copy.deepcopy(operator).start_from(step_matrix(observables, operator, paths, ridge))
