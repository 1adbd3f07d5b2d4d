"""Reframing: what an autoencoder has learnt in one frame, said in another.

Frames are affine, and an affine map folds into the first and last layers of encoder and decoder. So
a change of frame costs nothing that was learnt, where all layers change theirs alike.

Latent states change their unit with the frame. Otherwise, while states grow, latent ones would grow
beyond the coordinates and outweigh them in the loss. In a perceptron of LeakyReLU a change of unit
is one of the biases alone, so that weights keep their size too, which gradient steps are made for.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from torchkoopman.koopman.learnt import LearntObservables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from torchkoopman.koopman.coordinates import Coordinates
    from torchkoopman.koopman.feature_maps import Affine
    from torchkoopman.koopman.operator import Operator


@torch.no_grad()
def reframed(
    observables: LearntObservables,
    operator: Operator,
    old: Sequence[Coordinates],
    new: Sequence[Coordinates],
) -> tuple[LearntObservables, Operator]:
    """Observables and operator in new coordinates that predict as these did in the old ones.

    Exact on states that both frames hold, if the layers share a frame. If each has its own, one map
    must do for all of them: the mean of their changes. Latent states are divided by the mean size
    of the change, but for the constant.

    Args:
        observables: of the coordinates ``old``.
        operator: on their latent states.
        old: frames of the layers.
        new: other frames of the same layers; their size may differ.
    """
    inner, outer = _mean_change(new, old), _mean_change(old, new)
    unit = float(inner[0].norm() / min(inner[0].shape) ** 0.5)
    image = LearntObservables(
        new[0].size, observables.latent, observables.hidden, observables.constant
    ).to(observables.encoder.skip.weight)
    image.encoder = observables.encoder.in_units(unit).before((inner[0] / unit, inner[1] / unit))
    image.decoder = observables.decoder.in_units(unit).after((outer[0] * unit, outer[1]))
    if not observables.constant:
        return image, operator  # without an offset it commutes with the unit
    step = operator.matrix(1 / operator.steps).clone()
    step[1:, 0] /= unit
    return image, copy.deepcopy(operator).start_from(step)


def _mean_change(start: Sequence[Coordinates], end: Sequence[Coordinates]) -> Affine:
    """Weight and bias from the coordinates ``start`` of a state to its coordinates ``end``."""
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    for one, other in zip(start, end, strict=True):
        weight = other.weight.double()
        weights.append(weight @ one.inverse_weight.double())
        biases.append(weight @ (one.offset.double() - other.mean.double()))
    return torch.stack(weights).mean(0), torch.stack(biases).mean(0)
