"""The neutral head row: a forgotten class's logit becomes the mean of the retained ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from torchkoopman.koopman.arithmetic import without_autocast
from torchkoopman.unlearning.problem import wanted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import SupportsIndex

    from torchkoopman.koopman.coordinates import Coordinates

_MARGIN = 1e-3
"""What a neutral logit stays below the mean of the retained ones, in units of the mean length of
the head's rows; it breaks ties against the forgotten class."""


def neutral_head(head: nn.Linear, classes: Iterable[SupportsIndex] | SupportsIndex) -> nn.Linear:
    """A copy of a classifier's last layer in which the rows of some classes are neutral.

    A neutral row is the mean of the retained rows. The mean of the retained logits is never above
    their maximum, so no input is given a neutral class.

    Example:
        >>> head = tk.neutral_head(model[10], classes=[2])
        >>> answers = head(model[:10](test.inputs)).argmax(1)
        >>> answers.unique()
        tensor([0, 1])

    Args:
        head: the last layer, output unit c for class c.
        classes: whose rows become neutral, integers; one by itself is taken too.

    Raises:
        ValueError: a class the head has no row for, or no class left.
    """
    mixing, shift = _mixing(head, wanted(classes))
    with torch.random.fork_rng(devices=[]):
        image = nn.Linear(head.in_features, head.out_features).to(head.weight)
    with torch.no_grad():
        image.weight.copy_(mixing @ head.weight.double())
        image.bias.copy_(mixing @ _bias(head) + shift)
    return image


@without_autocast
def neutralised(end: Coordinates, head: nn.Linear, classes: Sequence[int]) -> Coordinates:
    """End coordinates that decode to states for which ``head`` itself gives neutral logits.

    The decoded state h becomes ``h + W⁺(N ℓ(h) - ℓ(h))``, affine in h, where ℓ are the head's
    logits, N makes rows neutral, and W⁺ is the pseudo-inverse of the head's weight.

    Raises:
        ValueError: the head does not take the end layer's features, or has dependent rows, so that
            no state has neutral logits.
    """
    if head.in_features != end.features:
        raise ValueError(
            f"the head takes {head.in_features} features, but the last layer has {end.features}; "
            "give the linear layer that follows the span directly, or edit it with neutral_head()."
        )
    weight = head.weight.detach().double()
    if torch.linalg.matrix_rank(weight) < head.out_features:
        raise ValueError(
            f"the head's {head.out_features} rows are linearly dependent over {head.in_features} "
            "features, so no state has neutral logits; edit the head itself with neutral_head()."
        )
    mixing, shift = _mixing(head, classes)
    change = mixing - torch.eye(len(mixing)).to(mixing)
    back = torch.linalg.pinv(weight)
    correction = torch.eye(end.features).to(mixing) + back @ change @ weight
    offset = back @ (change @ _bias(head) + shift)
    dtype = end.weight.dtype
    return end.after(correction.to(dtype), offset.to(dtype))


def _mixing(head: nn.Linear, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """N and the shift with ``neutral logits = N @ logits + shift``."""
    rows = list(range(head.out_features))
    outside = [c for c in classes if c not in rows]
    retained = [c for c in rows if c not in classes]
    if outside or not retained:
        raise ValueError(
            f"the head has rows 0 to {head.out_features - 1}; forgetting {list(classes)} asks for "
            f"{outside or 'all of them'}. Row c must be the logit of class c."
        )
    weight = head.weight.detach().double()
    mixing = torch.eye(len(rows)).to(weight)
    mixing[list(classes)] = 0
    mixing[torch.tensor(list(classes))[:, None], torch.tensor(retained)] = 1 / len(retained)
    shift = torch.zeros(len(rows)).to(weight)
    shift[list(classes)] = -_MARGIN * weight.norm(dim=1).mean()
    return mixing, shift


def _bias(head: nn.Linear) -> Tensor:
    if head.bias is None:
        return head.weight.new_zeros(head.out_features, dtype=torch.float64)
    return head.bias.detach().double()
