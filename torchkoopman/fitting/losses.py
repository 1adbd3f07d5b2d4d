"""The losses of the Koopman autoencoder (S1, arXiv 2505.12809), over layers at their depth-times.

For layers i < j of one path x, in coordinates, means over rows and features:

    L_rec   = |x_i - dec(enc x_i)|²                          layers, first and last halved
    L_state = |dec(K(t_j - t_i) enc x_i) - x_j|²              pairs of layers
    L_lat   = |K(t_j - t_i) enc x_i - enc x_j|²               pairs of layers
    L_iso   = (|enc x - enc x'| - |x - x'|)²                  pairs of rows, first and last layer
    L_beh   = KL(tail(x_L) ‖ tail(x̂_L))                       x̂_L predicted from the first layer

S1 has the first and the last layer alone, for which the powers of K cancel. Here the pair (first,
last) has weight one and each other pair, and each inner layer's reconstruction, the weight
``inner``, so that intermediate states are predictions of real layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torchkoopman.koopman.learnt import LearntObservables
    from torchkoopman.koopman.operators import Operator


@dataclass(frozen=True)
class LossWeights:
    """What each term of the loss counts for."""

    reconstruction: float = 1.0
    """L_rec: the decoder inverts the encoder on every layer."""
    state: float = 1.0
    """L_state: decoded predictions."""
    latent: float = 1.0
    """L_lat: predictions before decoding."""
    isometry: float = 1e-3
    """L_iso: distances between rows survive the encoding, which keeps the topology."""
    behaviour: float = 0.03
    """L_beh: what the rest of the network makes of the prediction; only with a ``tail``. Not of
    S1."""
    inner: float = 0.3
    """Of each pair of layers other than (first, last); 0 leaves the inner layers out."""


_LANDMARKS = 128
"""Rows whose mutual distances L_iso compares; a few hundred suffice, S1 takes the whole batch."""


def koopman_losses(
    paths: Tensor,
    observables: LearntObservables,
    operator: Operator,
    weights: LossWeights,
    tail: nn.Module | None = None,
) -> dict[str, Tensor]:
    """The terms of the loss, unweighted but for ``inner``, which acts within them.

    Args:
        paths: ``(rows, layers, coordinates)``, layers at even depth-times ``t_l = l / L``.
        observables: encoder and decoder.
        operator: K(t).
        weights: the isometry is not computed at weight zero.
        tail: from coordinates of the last layer, ``(rows, coordinates)``, to logits.
    """
    if weights.inner == 0:
        paths = paths[:, [0, -1]]
    targets = paths.transpose(0, 1).contiguous()
    latents = observables.encode(targets)
    depth = len(targets)
    predicted, starts = [], latents
    for _ in range(depth - 1):
        starts = operator(starts[:-1], 1 / (depth - 1))
        predicted.append(starts)
    ahead = torch.cat(predicted)
    decoded = observables.decode(torch.cat([latents, ahead]))
    # Predictions over one step of time come first, that of the last layer from the first last.
    ends = torch.cat([targets[step:] for step in range(1, depth)])
    aims = torch.cat([latents[step:] for step in range(1, depth)])
    pairs = targets.new_tensor([weights.inner] * (len(ends) - 1) + [1.0])
    layers = targets.new_tensor([0.5, *[weights.inner] * (depth - 2), 0.5])
    losses = {
        "reconstruction": _mean_square(decoded[:depth] - targets) @ layers,
        "state": _mean_square(decoded[depth:] - ends) @ pairs,
        "latent": _mean_square(ahead - aims) @ pairs,
    }
    if tail is not None and weights.behaviour:
        losses["behaviour"] = _divergence(tail(targets[-1]), tail(decoded[-1]))
    if weights.isometry:
        losses["isometry"] = _isometry(targets[[0, -1], :_LANDMARKS], latents[[0, -1], :_LANDMARKS])
    return losses


def total_loss(losses: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """The weighted sum of the terms."""
    return torch.stack([getattr(weights, term) * loss for term, loss in losses.items()]).sum()


def _mean_square(error: Tensor) -> Tensor:
    """Mean over rows and features, ``(pairs, rows, features)`` to ``(pairs,)``."""
    return error.square().mean((1, 2))


def _divergence(logits: Tensor, predicted: Tensor) -> Tensor:
    """Kullback–Leibler divergence of the predicted classes from the network's, mean over rows."""
    log_truth, log_guess = logits.log_softmax(-1), predicted.log_softmax(-1)
    return (log_truth.exp() * (log_truth - log_guess)).sum(-1).mean()


def _isometry(states: Tensor, latents: Tensor) -> Tensor:
    """Mean squared difference of the rows' mutual distances; ``(layers, rows, features)`` each.

    Relative to the number of coordinates, so that the term does not grow with it.
    """
    difference = _distances(latents) - _distances(states)
    rows = states.shape[1]
    pairs = len(states) * rows * max(1, rows - 1)
    return difference.square().sum() / (pairs * states.shape[-1])


def _distances(points: Tensor) -> Tensor:
    """Mutual Euclidean distances, ``(layers, rows, rows)``, from the Gram matrix."""
    gram = points @ points.mT
    squares = gram.diagonal(dim1=1, dim2=2)
    # The small floor keeps the root differentiable where rows coincide.
    return (squares[:, :, None] + squares[:, None] - 2 * gram).clamp(min=1e-8).sqrt()
