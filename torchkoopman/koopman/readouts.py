"""How a layer's state is read off the latent state by one matrix, exactly or as nearly as can be.

A dictionary's state is an affine function of the latent one, so the matrix is exact. A learnt
decoder is not linear: its matrix is its Jacobian, or least squares on states that are given.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from torchkoopman.koopman.regression import ridge_map
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs

if TYPE_CHECKING:
    from torch import Tensor

    from torchkoopman.koopman.coordinates import Coordinates
    from torchkoopman.koopman.learnt import LearntObservables
    from torchkoopman.koopman.observables import Dictionary

_RIDGE = 1e-9
"""Ridge of the least squares, relative to the mean variance: below float32's resolution."""


@dataclass(frozen=True)
class Readout:
    """``x ≈ matrix @ z + offset`` for the state x of one layer and the latent state z."""

    matrix: Tensor
    """Float64, shape ``(features, latent)``."""
    offset: Tensor
    """Float64, shape ``(features,)``; zero if the constant function carries it."""
    exact: bool
    """Whether it is what the surrogate decodes."""
    note: str
    """What it is, in words."""


def exact_readout(dictionary: Dictionary, frame: Coordinates, constant: bool) -> Readout:
    """The read-out of a dictionary; ``constant`` if the operator keeps its constant at 1."""
    matrix = frame.inverse_weight.double() @ dictionary.decoding_matrix().to(frame.weight).double()
    return _carried(matrix, frame.offset.double(), constant, True, "exact: the decoder is linear")


def jacobian_readout(
    observables: LearntObservables, frame: Coordinates, latent: Tensor, constant: bool
) -> Readout:
    """The decoder to first order around a latent state, ``(latent,)``."""
    decoder, inverse = copy.deepcopy(observables).double(), copy.deepcopy(frame).double()
    point = latent.to(inverse.weight)
    matrix = torch.func.jacrev(lambda z: inverse.inverse(decoder.decode(z)))(point).detach()
    offset = (inverse.inverse(decoder.decode(point)) - matrix @ point).detach()
    note = (
        "not exact: the decoder is not linear, and these are the modes of its Jacobian at the "
        "mean latent state; give states= for least squares on data"
    )
    return _carried(matrix, offset, constant, False, note)


def regressed_readout(latents: Tensor, states: Tensor, constant: bool) -> Readout:
    """The least-squares affine map from latent states to states.

    Args:
        latents: ``(rows, latent)``.
        states: ``(rows, features)``.
        constant: whether the first latent coordinate is 1 and the operator keeps it so.

    Raises:
        ValueError: too few rows.
    """
    if len(latents) <= latents.shape[1]:
        raise ValueError(
            f"states has {len(latents)} rows for a read-out of {latents.shape[1]} latent "
            "coordinates; give more rows than those."
        )
    rows = {"start": latents.double(), "end": states.double()}
    moments = Moments(layer_pairs(("start", "end"), "ends")).update(rows)
    matrix, offset = ridge_map(moments, _RIDGE)
    left = (rows["end"] - rows["start"] @ matrix.T - offset).square().mean(0).sum()
    total = moments.cov("end", "end").trace()
    note = (
        f"not exact: the decoder is not linear, and these are least squares on {len(latents)} "
        f"states, of whose variance {left / total:.2%} is unexplained"
    )
    return _carried(matrix, offset, constant, False, note)


def _carried(matrix: Tensor, offset: Tensor, constant: bool, exact: bool, note: str) -> Readout:
    """The offset given to the constant function, the first latent coordinate, if it stays 1."""
    matrix, offset = matrix.cpu(), offset.cpu()
    if not constant:
        apart = "; the layer's offset stands apart, for the operator does not keep the constant"
        return Readout(matrix, offset, exact, note + apart)
    matrix = matrix.clone()
    matrix[:, 0] += offset
    carried = "; the layer's offset belongs to the constant function (λ = 1)"
    return Readout(matrix, torch.zeros_like(offset), exact, note + carried)
