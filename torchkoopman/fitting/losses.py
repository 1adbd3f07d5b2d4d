"""The losses of the Koopman autoencoder (arXiv 2505.12809), over layers at their depth-times.

For layers i < j of one path x, in coordinates, means over rows and features:

    L_rec   = |x_i - dec(enc x_i)|²                          layers, first and last halved
    L_state = |dec(K(t_j - t_i) enc x_i) - x_j|²              pairs of layers
    L_lat   = |K(t_j - t_i) enc x_i - enc x_j|²               pairs of layers
    L_iso   = (|enc x - enc x'| - |x - x'|)²                  pairs of rows, first and last layer
    L_beh   = KL(tail(x_L) ‖ tail(x̂_L))                       x̂_L predicted from the first layer

The paper has the first and the last layer alone, for which the powers of K cancel. Here the pair
(first, last) has weight one and each other pair, and each inner layer's reconstruction, the weight
``inner``, so that intermediate states are predictions of real layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torchkoopman.koopman.learnt import LearntObservables
    from torchkoopman.koopman.operator import Operator


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms in the loss of an :class:`AutoencoderFitter`.

    The terms are those of the Koopman-autoencoder paper (arXiv 2505.12809), except ``behaviour``
    and ``inner``. Each is a mean square over rows and coordinates.

    Example:
        >>> weights = tk.LossWeights(isometry=0)  # do not ask the encoder to keep distances
        >>> fitter = tk.AutoencoderFitter(latent=8, weights=weights)
        >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> fitter = fitter.update(tk.Trajectory.of(x, torch.tanh(x))).train(20)
        >>> sorted(fitter.surrogate.record.losses)
        ['latent', 'reconstruction', 'state']
    """

    reconstruction: float = 1.0
    """L_rec: decoded latent states against the layers' own states."""
    state: float = 1.0
    """L_state: decoded predictions against the states of the later layers."""
    latent: float = 1.0
    """L_lat: predicted latent states against the encoded states of the later layers."""
    isometry: float = 1e-3
    """L_iso: distances between latent states against those between states, which keeps the
    topology."""
    behaviour: float = 0.03
    """L_beh: Kullback–Leibler divergence of the classes that the rest of the network gives for the
    prediction; only with a ``tail``."""
    inner: float = 0.3
    """Weight of each pair of layers other than (first, last) within the terms, where there is a
    step for each layer; ``dynamics="span"`` leaves inner layers out."""


_LANDMARKS = 128
"""Rows whose mutual distances L_iso compares; a few hundred suffice, the paper takes the batch."""


def koopman_losses(
    paths: Tensor,
    observables: LearntObservables,
    operator: Operator,
    weights: LossWeights,
    tail: nn.Module | None = None,
    inner_rows: int | None = None,
    scales: Tensor | None = None,
) -> dict[str, Tensor]:
    """The terms of the loss, unweighted but for ``inner``, which acts within them.

    Args:
        paths: ``(rows, layers, coordinates)``, layers at even depth-times ``t_l = l / L``.
        observables: encoder and decoder.
        operator: K(t).
        weights: the isometry is not computed at weight zero.
        tail: from coordinates of the last layer, ``(rows, coordinates)``, to logits.
        inner_rows: inner layers and all pairs but (first, last) are taken on so many of the rows;
            None for all. Their number grows with the square of the depth, so a share of a random
            batch makes a step many times cheaper and changes no mean.
        scales: what each layer's errors are divided by, ``(layers,)``: the layers' deviations, so
            that in a frame that all share each layer counts alike, however states grow with depth.
    """
    if weights.inner == 0:
        paths = paths[:, [0, -1]]
        scales = None if scales is None else scales[[0, -1]]
    rows, steps = len(paths), paths.shape[1] - 1
    share = rows if inner_rows is None else min(inner_rows, rows)
    first, last = paths[:, 0], paths[:, -1]
    middle = paths[:share, 1:-1].transpose(0, 1).flatten(0, 1)
    states = torch.cat([first, last, middle])
    latents = observables.encode(states)
    start, end, between = torch.split(latents, [rows, rows, len(middle)])
    reached, inner = _walk(operator, start, between, share, steps)
    decoded = observables.decode(torch.cat([latents, reached, inner]))
    again, arrived, passed = torch.split(decoded, [len(latents), rows, len(inner)])
    errors = {
        "reconstruction": (again[: 2 * rows] - states[: 2 * rows], again[2 * rows :] - middle),
        "state": (arrived - last, passed - _aims(middle, last, share, steps)),
        "latent": (reached - end, inner - _aims(between, end, share, steps)),
    }
    if scales is not None:
        errors = _relative(errors, scales, rows, share)
    losses = {
        term: ends.square().mean() + weights.inner * _layer_means(others, share)
        for term, (ends, others) in errors.items()
    }
    if tail is not None and weights.behaviour:
        losses["behaviour"] = divergence(tail(last), tail(arrived))
    if weights.isometry:
        near, far = (torch.stack(pair)[:, :_LANDMARKS] for pair in ((first, last), (start, end)))
        if scales is not None:
            near, far = (points / scales[[0, -1], None, None] for points in (near, far))
        losses["isometry"] = _isometry(near, far)
    return losses


def total_loss(losses: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """The weighted sum of the terms."""
    return torch.stack([getattr(weights, term) * loss for term, loss in losses.items()]).sum()


def _walk(
    operator: Operator, start: Tensor, between: Tensor, share: int, steps: int
) -> tuple[Tensor, Tensor]:
    """Lead latent states through depth, step by step.

    Args:
        operator: K(t), of which a step is ``1 / steps``.
        start: of the first layer, ``(rows, latent)``.
        between: of the inner layers, ``share`` rows each, one layer after the other.
        share: rows of each other pair.
        steps: layers less one.

    Returns:
        What ``start`` becomes at the last layer; and all other predictions, ``share`` rows each:
        those of one step first, and among these that of the earliest layer first.
    """
    moving, others = torch.cat([start, between]), [start[:0]]
    for _ in range(steps - 1):
        moving = operator(moving, 1 / steps)
        others += [moving[:share], moving[len(start) :]]
        moving = moving[:-share]  # the latest layer has arrived
    return operator(moving, 1 / steps), torch.cat(others)


def _aims(between: Tensor, end: Tensor, share: int, steps: int) -> Tensor:
    """What the other predictions of :func:`_walk` should have been, in their order."""
    later = [torch.cat([between[step * share :], end[:share]]) for step in range(steps - 1)]
    return torch.cat([end[:0], *later])


def _relative(
    errors: dict[str, tuple[Tensor, Tensor]], scales: Tensor, rows: int, share: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Errors divided by the scale of the layer they are errors of, in the order of the terms."""
    ends, inner = scales[[0, -1]].repeat_interleave(rows), scales[1:-1].repeat_interleave(share)
    later = [scales[step + 1 :] for step in range(len(scales) - 2)]
    aimed = torch.cat([scales[:0], *later]).repeat_interleave(share)
    divisors = {
        "reconstruction": (ends, inner),
        "state": (scales[-1:], aimed),
        "latent": (scales[-1:], aimed),
    }
    return {
        term: (left / divisors[term][0][:, None], right / divisors[term][1][:, None])
        for term, (left, right) in errors.items()
    }


def _layer_means(errors: Tensor, rows: int) -> Tensor:
    """Sum over layers or pairs, ``rows`` each, of the mean square over rows and features."""
    return errors.square().sum() / (max(1, rows) * errors.shape[-1])


def divergence(logits: Tensor, predicted: Tensor) -> Tensor:
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
