"""The tail: what follows the last layer in the network, by which predictions are judged."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from torch import Tensor, nn

from torchkoopman.observe.capture import plain_modes

if TYPE_CHECKING:
    from torchkoopman.koopman.coordinates import Coordinates


def frozen(tail: nn.Module) -> nn.Module:
    """A copy that takes no gradients and has the precision that the fit has."""
    device = next((each.device.type for each in tail.parameters()), "cpu")
    with plain_modes(device, grad=False):
        return copy.deepcopy(tail).eval().requires_grad_(False).float()


def judging(frame: Coordinates, tail: nn.Module | None, positions: int) -> nn.Module | None:
    """The tail as a map of the last layer's coordinates, ``(rows, coordinates)``, to logits.

    Raises:
        ValueError: samples have more positions than one.
    """
    if tail is None:
        return None
    if positions != 1:
        raise ValueError(
            f"tail= is applied to one row at a time, but samples have {positions} positions; "
            "leave the tail out, or flatten them with layout='b ... -> b 1 (...)'."
        )
    return nn.Sequential(_Decoded(copy.deepcopy(frame).float()), tail)


class _Decoded(nn.Module):
    """Coordinates back to features, as a module."""

    def __init__(self, frame: Coordinates) -> None:
        super().__init__()
        self.frame = frame

    def forward(self, coordinates: Tensor) -> Tensor:
        return self.frame.inverse(coordinates)
