"""What a surrogate makes of the states of its layers: coordinates, and latent states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.koopman.states import require_states
from torchkoopman.koopman.value import Value

if TYPE_CHECKING:
    from torchkoopman.koopman.coordinates import Coordinates


class Encoded(Value):
    """The layers of a surrogate, by name, and their latent states."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, first in depth first."""
        return self.span.layers

    def time(self, layer: str) -> float:
        """Depth-time of a layer."""
        return self.span.times[self._index(layer)]

    def _frame(self, layer: str) -> Coordinates:
        return self.frames()[self._index(layer)]

    def _index(self, layer: str) -> int:
        if layer not in self.layers:
            raise ValueError(f"the surrogate knows the layers {self.layers}, not {layer!r}.")
        return self.layers.index(layer)

    def _keeps_constant(self) -> bool:
        """Whether the first latent coordinate is 1 and the operator leaves it at that."""
        first = self.operator.matrix(1 / self.operator.steps)[0].detach()
        unit = torch.eye(1, len(first))[0].to(first)
        return self.observables.constant and torch.equal(first, unit)

    def _latents(self, state: Tensor, layer: str, mask: Tensor | None) -> Tensor:
        """The encoded states of a layer, in the surrogate's precision."""
        frame = self._frame(layer)
        require_states(state, layer, frame.features, mask)
        return self.observables.encode(frame(state.to(frame.weight.dtype)), mask)

    def _mean_latent(self, layer: str) -> Tensor:
        """The mean latent state of the fit carried to a layer, or that of the layer's mean."""
        frame = self._frame(layer)
        if self.statistics is None:
            return self.observables.encode(torch.zeros(1, 1, frame.size).to(frame.weight))[0, 0]
        mean = self.statistics.total().mean("start").to(frame.weight)
        carried: Tensor = self.operator(mean, self.time(layer))
        return carried
