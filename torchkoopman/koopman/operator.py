"""Operators K(t) on latent states: what all families have in common.

An operator acts on the last axis, ``K(t) z``, over a span of unit time: ``K(1)`` leads from the
first chosen layer to the last. *Discrete* families hold the matrix M of one step, ``K(k / steps) =
M^k``; other times are powers through the logarithm, where one exists. *Generator* families hold A
with ``K(t) = exp(t A)`` and take any time.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from torchkoopman.koopman.arithmetic import without_autocast
from torchkoopman.koopman.powers import fractional_power


class Operator(nn.Module):
    """A linear operator family ``K(t)`` of size ``(latent, latent)`` with ``K(0) = I``."""

    guarantee: ClassVar[str]
    """What holds for any parameter values, in one line."""

    def __init__(self, latent: int, steps: int = 1) -> None:
        super().__init__()
        if latent < 1 or steps < 1:
            raise ValueError(f"an operator needs latent ≥ 1 and steps ≥ 1; got {latent}, {steps}.")
        self.latent = latent
        self.steps = steps

    def matrix(self, time: float = 1.0) -> Tensor:
        """``K(time)``, shape ``(latent, latent)``."""
        raise NotImplementedError

    def exact_at(self, time: float) -> bool:
        """Whether ``K(time)`` needs no fractional power of a matrix."""
        return True

    def start_from(self, step: Tensor) -> Self:
        """Take the family's nearest member to the one-step matrix ``step`` (see each family)."""
        raise NotImplementedError

    def forward(self, latent: Tensor, time: float = 1.0) -> Tensor:
        """``K(time)`` applied to ``(…, latent)``."""
        return torch.matmul(latent, self.matrix(time).T)

    def config(self) -> dict[str, Any]:
        """What :func:`operator_from_config` needs to build the same structure."""
        return {"family": type(self).__name__, "latent": self.latent, "steps": self.steps}


class Discrete(Operator):
    """Families given by the matrix of one step."""

    def step(self) -> Tensor:
        """M, shape ``(latent, latent)``."""
        raise NotImplementedError

    def exact_at(self, time: float) -> bool:
        """Whether ``time`` is a whole number of steps."""
        return abs(time * self.steps - round(time * self.steps)) < 1e-6

    @without_autocast
    def matrix(self, time: float = 1.0) -> Tensor:
        """``M^(time × steps)``.

        Raises:
            ValueError: ``time × steps`` is no integer and M has no real logarithm.
        """
        count = time * self.steps
        if not self.exact_at(time):
            return fractional_power(self.step(), count)
        power: Tensor = torch.linalg.matrix_power(self.step(), round(count))
        return power

    def forward(self, latent: Tensor, time: float = 1.0) -> Tensor:
        """``K(time)`` applied to ``(…, latent)``; for whole steps without forming the power."""
        count = time * self.steps
        if not self.exact_at(time) or count < 0:
            return super().forward(latent, time)
        step = self.step().T
        for _ in range(round(count)):
            latent = latent @ step
        return latent
