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


def judging(frame: Coordinates, tail: nn.Module) -> nn.Module:
    """The tail as a map of the last layer's coordinates, ``(rows, coordinates)``, to logits."""
    return nn.Sequential(_Decoded(copy.deepcopy(frame).float()), tail)


class _Decoded(nn.Module):
    """Coordinates back to features, as a module."""

    def __init__(self, frame: Coordinates) -> None:
        super().__init__()
        self.frame = frame

    def forward(self, coordinates: Tensor) -> Tensor:
        return self.frame.inverse(coordinates)
