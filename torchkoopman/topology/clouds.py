"""Clouds: the same rows of every layer, drawn evenly from a stream, and their predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchkoopman.observe.trajectory import Trajectory
    from torchkoopman.topology.system import Predicting

Space = Literal["states", "latent"]
"""Where clouds are compared: in the layers' own states, or in the surrogate's latent space."""

Kind = Literal["network", "surrogate"]
Key = tuple[Kind, str]


class Clouds:
    """Listens to trajectories and keeps ``points`` rows of them, every row with equal probability.

    Each row draws a random key and the smallest keys stay, wherever in the stream they are. The
    other positions of a kept row's sample are there when it is predicted, for observables that
    look along them.
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
        self._generator = generator
        self._keys = torch.empty(0, dtype=torch.float64)
        self._kept: dict[Key, Tensor] = {}

    @torch.no_grad()
    def update(self, trajectory: Trajectory) -> None:
        """Offer the rows of one trajectory."""
        trajectory = self.surrogate.span.stacked(trajectory)
        counted = trajectory.counted().cpu()
        keys = torch.full(counted.shape, torch.inf, dtype=torch.float64)
        drawn = torch.rand(int(counted.sum()), generator=self._generator, dtype=torch.float64)
        keys[counted] = drawn
        everything = torch.cat([self._keys, drawn]).sort().values
        limit = everything[: self.points][-1] if len(everything) else -1
        samples = (keys <= limit).any(1)
        if not samples.any():
            return
        stay = self._keys <= limit
        self._keys = torch.cat([self._keys[stay], keys[samples][keys[samples] <= limit]])
        chosen = (keys <= limit)[samples].to(trajectory.device)
        part = trajectory.select(samples.to(trajectory.device))
        for key, states in self._states(part).items():
            rows = states[chosen]
            old = self._kept.get(key)
            self._kept[key] = rows if old is None else torch.cat([old[stay.to(rows.device)], rows])

    def of(self, kind: Kind) -> dict[str, Tensor]:
        """Layer → rows, ``(rows, features)``: the same rows in all, shuffled.

        ``"network"`` are the layers' own states, ``"surrogate"`` what it predicts of them from the
        first layer. Any first few rows are a random sample too.
        """
        order = self._keys.argsort()
        found = ((name, rows) for (of, name), rows in self._kept.items() if of == kind)
        return {name: rows[order.to(rows.device)] for name, rows in found}

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
