"""What one surrogate predicts: states of a layer from those of an earlier one.

    x_j ≈ C_j⁻¹ ∘ decode ∘ K(t_j - t_i) ∘ encode ∘ C_i (x_i)

for any two chosen layers i before j at depth-times t (as in arXiv 2505.12809).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.koopman.arithmetic import without_autocast
from torchkoopman.koopman.looks import Looks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchkoopman.observe.trajectory import InputSpec
    from torchkoopman.observe.views import View


class Prediction(Looks):
    """The part of a surrogate that computes; a ``Surrogate`` is one."""

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Shape and dtype of the model's positional tensor arguments, where a probe saw them."""
        return self.span.inputs

    @property
    def views(self) -> Mapping[str, View]:
        """Layer → how its output becomes a state; empty where states were given as they are.

        ``attach(model, surrogate.layers, output=surrogate.views)`` reads the layers in this way.
        """
        return self.span.views

    @property
    def latent(self) -> int:
        """Size of the operator."""
        return self.operator.latent

    @without_autocast
    def encode(self, state: Tensor, layer: str, mask: Tensor | None = None) -> Tensor:
        """The latent state of a layer's state.

        Args:
            state: ``(batch, positions, features)``, of any floating-point dtype.
            layer: whose state it is.
            mask: rows that count, ``(batch, positions)``.

        Returns:
            ``(batch, positions, latent)``, in the surrogate's precision.

        Raises:
            ValueError: an unknown layer.
        """
        frame = self._frame(layer)
        own = state.to(frame.weight.dtype) if state.is_floating_point() else state
        return self.observables.encode(frame(own), mask)

    @without_autocast
    def decode(self, latent: Tensor, layer: str) -> Tensor:
        """The state of a layer, ``(batch, positions, features)``, from a latent one."""
        return self._frame(layer).inverse(self.observables.decode(latent))

    @without_autocast
    def predict(
        self,
        state: Tensor,
        start: str | None = None,
        end: str | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The state of layer ``end`` from that of layer ``start``, by default of last from first.

        Raises:
            ValueError: an unknown layer, ``start`` not before ``end``, or layers between the steps
                of an operator that has no real power there.
        """
        start, end = self._ends(start, end)
        time = self.time(end) - self.time(start)
        return self.decode(self.operator(self.encode(state, start, mask), time), end)

    def forward(self, state: Tensor, mask: Tensor | None = None) -> Tensor:
        """The last layer's state from the first layer's, as :meth:`predict` without layers."""
        return self.predict(state, mask=mask)

    @without_autocast
    def trajectory(
        self, state: Tensor, times: Sequence[float] | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """The path through depth that starts at a state of the first layer.

        Args:
            state: ``(batch, positions, features)``.
            times: depth-times, from 0 at the first layer to 1 at the last; the layers' own by
                default. Between two layers the state is decoded in the coordinates of both, and
                interpolated.
            mask: rows that count, ``(batch, positions)``.

        Returns:
            ``(times, batch, positions, features)``.

        Raises:
            ValueError: layers of different widths, or a time at which K(t) does not exist.
        """
        if len({frame.features for frame in self.frames()}) > 1:
            raise ValueError(
                f"layers have widths {[frame.features for frame in self.frames()]}, so the states "
                "of a path do not fit in one tensor; ask predict() layer by layer."
            )
        latent = self.encode(state, self.layers[0], mask)
        times = self.span.times if times is None else times
        return torch.stack([self._decode_at(latent, float(time)) for time in times])

    def _decode_at(self, latent: Tensor, time: float) -> Tensor:
        """The state at any depth-time, between two layers mixed from both their coordinates."""
        coordinates = self.observables.decode(self.operator(latent, time))
        times, frames = self.span.times, self.frames()
        later = next((k for k, t in enumerate(times) if t >= time), len(times) - 1)
        earlier = max(later - 1, 0) if times[later] > time else later
        gap = times[later] - times[earlier]
        weight = 0.0 if gap == 0 else (time - times[earlier]) / gap
        return torch.lerp(
            frames[earlier].inverse(coordinates), frames[later].inverse(coordinates), weight
        )

    def _ends(self, start: str | None, end: str | None) -> tuple[str, str]:
        start = self.layers[0] if start is None else start
        end = self.layers[-1] if end is None else end
        if self._index(start) >= self._index(end):
            raise ValueError(f"start={start!r} must come before end={end!r} in {self.layers}.")
        return start, end
