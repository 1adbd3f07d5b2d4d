"""Reframing: what an autoencoder has learnt in one frame, said in another.

Frames are affine, and an affine map folds into the first and last layers of encoder and decoder. So
a change of frame costs nothing that was learnt, where all layers change theirs alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from torchkoopman.koopman.learnt import LearntObservables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from torchkoopman.koopman.coordinates import Coordinates
    from torchkoopman.koopman.parts import Affine


@torch.no_grad()
def reframed(
    observables: LearntObservables, old: Sequence[Coordinates], new: Sequence[Coordinates]
) -> LearntObservables:
    """Observables of new coordinates that encode and decode as these did of the old ones.

    Exact on states that both frames hold, if the layers share a frame. If each has its own, one map
    must do for all of them: the mean of their changes.

    Args:
        observables: of the coordinates ``old``.
        old: frames of the layers.
        new: other frames of the same layers; their size may differ.
    """
    inner, outer = _mean_change(new, old), _mean_change(old, new)
    image = LearntObservables(
        new[0].size, observables.latent, observables.hidden, observables.constant
    ).to(observables.encoder.skip.weight)
    image.encoder = observables.encoder.before(inner)
    image.decoder = observables.decoder.after(outer)
    return image


def _mean_change(start: Sequence[Coordinates], end: Sequence[Coordinates]) -> Affine:
    """Weight and bias from the coordinates ``start`` of a state to its coordinates ``end``."""
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    for one, other in zip(start, end, strict=True):
        weight = other.weight.double()
        weights.append(weight @ one.inverse_weight.double())
        biases.append(weight @ (one.offset.double() - other.mean.double()))
    return torch.stack(weights).mean(0), torch.stack(biases).mean(0)
