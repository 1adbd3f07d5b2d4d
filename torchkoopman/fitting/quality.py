"""How good a prediction is: the share of variance it explains, streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch

from torchkoopman.observe.capture import plain_modes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.trajectory import Trajectory


class Unexplained:
    """1 - R² = E|prediction - x|² / E|x - mean|² over a stream of rows, in float64.

    Fits are compared by it, since near 0 it keeps digits that R² loses near 1; people read R².
    """

    def __init__(self) -> None:
        self.rows = 0
        self._error = 0.0
        self._spread = 0.0
        self._mean: Tensor | float = 0.0

    def update(self, prediction: Tensor, truth: Tensor) -> Self:
        """Take in rows of a prediction and of what it should have been, ``(rows, features)``."""
        rows = len(truth)
        if rows == 0:
            return self
        truth, part = truth.double(), Unexplained()
        part.rows, part._mean = rows, truth.mean(0)
        # In place, for new memory costs more than the arithmetic.
        error = prediction.to(torch.float64, copy=True).sub_(truth)
        part._error = error.square_().sum().item()
        del error
        part._spread = (truth - part._mean).square_().sum().item()
        return self.merge(part)

    def merge(self, other: Unexplained) -> Self:
        """Take in the rows of another stream."""
        if other.rows == 0:
            return self
        rows = self.rows + other.rows
        shift = torch.as_tensor(other._mean - self._mean)
        self._error += other._error
        self._spread += other._spread
        self._spread += shift.square().sum().item() * self.rows * other.rows / rows
        self._mean = self._mean + shift * (other.rows / rows)
        self.rows = rows
        return self

    def state_dict(self) -> dict[str, Any]:
        """What was summed, as tensors and plain types."""
        mean = torch.as_tensor(self._mean, dtype=torch.float64)
        return {"rows": self.rows, "error": self._error, "spread": self._spread, "mean": mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go on from what :meth:`state_dict` said."""
        self.rows, self._mean = state["rows"], state["mean"].clone()
        self._error, self._spread = state["error"], state["spread"]
        return self

    @property
    def value(self) -> float:
        """``1 - R²``; infinite where the truth does not vary but the prediction is off."""
        if self._spread == 0:
            return 0.0 if self._error == 0 else float("inf")
        return self._error / self._spread

    @property
    def r2(self) -> float:
        """R²: 1 is a perfect prediction, 0 that of the mean."""
        return 1 - self.value


def predictions(surrogate: Surrogate, trajectory: Trajectory) -> dict[str, Tensor]:
    """Layer → counted rows predicted from the first layer, ``(rows, features)``.

    Layers between the steps of the operator are left out: an operator fitted across the whole span
    says nothing of them.
    """
    first, *later = surrogate.layers
    trajectory = surrogate.span.stacked(trajectory)
    if not surrogate.observables.contextual:
        trajectory = trajectory.sampled()
    rows = {}
    with plain_modes(trajectory.device.type, grad=False):
        start = trajectory.states[first].to(next(surrogate.parameters()).dtype)
        for layer in later:
            if surrogate.operator.exact_at(surrogate.time(layer)):
                state = surrogate.predict(start, first, layer, trajectory.mask)
                rows[layer] = trajectory.flatten(state)
    return rows


def outside(surrogate: Surrogate, trajectory: Trajectory) -> dict[str, Unexplained]:
    """Layer → what its coordinates leave out of one trajectory, where they are fewer than features.

    Its ``value`` is the share of the layer's variance that lies outside the axes that were kept.
    """
    rows = surrogate.span.stacked(trajectory).rows()
    found = {}
    with plain_modes(trajectory.device.type, grad=False):
        for layer, frame in zip(surrogate.layers, surrogate.frames(), strict=True):
            if frame.size < frame.features:
                # Of an edited surrogate the way back is another; its coordinates are the same.
                within = frame(rows[layer].to(frame.weight)) @ frame.inverse_weight.T + frame.mean
                found[layer] = Unexplained().update(within, rows[layer])
    return found


def explained(surrogate: Surrogate, trajectory: Trajectory) -> dict[str, float]:
    """Layer → R² of its prediction from the first layer on one trajectory."""
    truth = surrogate.span.stacked(trajectory).rows()
    return {
        layer: Unexplained().update(rows, truth[layer]).r2
        for layer, rows in predictions(surrogate, trajectory).items()
    }
