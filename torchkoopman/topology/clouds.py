"""Clouds: the same rows of every layer, drawn evenly from a stream, and their predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from torchkoopman.observe.even_rows import EvenRows

if TYPE_CHECKING:
    from torchkoopman.observe.trajectory import Trajectory
    from torchkoopman.topology.system import Predicting

Space = Literal["states", "latent"]
"""Where clouds are compared: in the layers' own states, or in the surrogate's latent space."""

Kind = Literal["network", "surrogate"]
Key = tuple[Kind, str]


class Clouds:
    """Listens to trajectories and keeps ``points`` rows of them, every row with equal probability.

    Kept are the states of both kinds at each layer.
    """

    def __init__(
        self,
        surrogate: Predicting,
        points: int,
        space: Space,
        generator: torch.Generator,
    ) -> None:
        self.surrogate = surrogate
        self.contextual = surrogate.observables.contextual
        self.points = points
        self.layers = [
            layer
            for layer in surrogate.layers
            if surrogate.operator.exact_at(surrogate.time(layer))
        ]
        """Layers at whole steps of the operator; one fitted across the span knows only its ends."""
        self._space = space
        self._rows = EvenRows(points, self._states, generator)

    @torch.no_grad()
    def update(self, trajectory: Trajectory) -> None:
        """Offer the rows of one trajectory."""
        self._rows.update(self.surrogate.span.stacked(trajectory))

    def of(self, kind: Kind) -> dict[str, Tensor]:
        """Layer → rows, ``(rows, features)``: the same rows in all, shuffled.

        ``"network"`` are the layers' own states, ``"surrogate"`` what it predicts of them from the
        first layer. Any first few rows are a random sample too.
        """
        kept = self._rows.rows().items()
        return {name: rows for (of, name), rows in kept if of == kind}

    def _states(self, part: Trajectory) -> dict[Key, Tensor]:
        """States of both kinds, ``(batch, positions, features)`` each."""
        surrogate, mask, first = self.surrogate, part.mask, self.surrogate.layers[0]
        dtype = next(surrogate.parameters()).dtype
        start = part.states[first].to(dtype)
        latent, states = surrogate.encode(start, first, mask), dict[Key, Tensor]()
        for layer in self.layers:
            own, path = part.states[layer], surrogate.operator(latent, surrogate.time(layer))
            if self._space == "latent":
                own = surrogate.encode(own.to(dtype), layer, mask)
            else:
                path = surrogate.decode(path, layer)
            states["network", layer], states["surrogate", layer] = own, path
        return states
