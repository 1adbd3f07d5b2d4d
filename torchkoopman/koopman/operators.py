"""The families of operators, each with its guarantee; see ``operator.py``."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from torchkoopman.koopman.arithmetic import without_autocast
from torchkoopman.koopman.operator import Discrete, Operator
from torchkoopman.koopman.powers import logarithm


class Dense(Discrete):
    """A free matrix; with ``constant`` its first row is ``[1, 0, …]`` and stays so.

    The constant keeps the first latent coordinate at 1, which makes the operator affine in the
    others. This is the only family that has a closed form.
    """

    guarantee = "any real matrix; with a constant, eigenvalue 1 belongs to the constant function"

    def __init__(self, latent: int, steps: int = 1, constant: bool = False) -> None:
        super().__init__(latent, steps)
        self.constant = constant
        self.rows = nn.Parameter(torch.eye(latent)[int(constant) :])

    def step(self) -> Tensor:
        """M, shape ``(latent, latent)``."""
        if not self.constant:
            return self.rows
        return torch.cat([torch.eye(1, self.latent).to(self.rows), self.rows])

    @torch.no_grad()
    def start_from(self, step: Tensor) -> Self:
        """Take ``step`` as it is; with a constant, its first row must be ``[1, 0, …]``."""
        self.rows.copy_(step[int(self.constant) :])
        return self

    def config(self) -> dict[str, Any]:
        """The structure, with the constant."""
        return super().config() | {"constant": self.constant}


class LowRank(Discrete):
    """``M = U Vᵀ`` of rank at most ``rank``; K(0) is the identity by convention."""

    guarantee = "rank K(t) ≤ rank for t > 0, with 2·latent·rank parameters"

    def __init__(self, latent: int, steps: int = 1, rank: int = 8) -> None:
        super().__init__(latent, steps)
        if not 1 <= rank <= latent:
            raise ValueError(f"rank={rank} must lie between 1 and latent={latent}.")
        self.rank = rank
        self.left = nn.Parameter(torch.eye(latent, rank))
        self.right = nn.Parameter(torch.eye(latent, rank))

    def step(self) -> Tensor:
        """M, shape ``(latent, latent)``."""
        return self.left @ self.right.T

    def forward(self, latent: Tensor, time: float = 1.0) -> Tensor:
        """``K(time)`` applied to ``(…, latent)``; for whole steps without forming M."""
        count = time * self.steps
        if not self.exact_at(time) or count < 0:
            return super().forward(latent, time)
        for _ in range(round(count)):
            latent = latent @ self.right @ self.left.T
        return latent

    @torch.no_grad()
    def start_from(self, step: Tensor) -> Self:
        """Take the nearest matrix of this rank (Eckart–Young)."""
        U, S, Vh = torch.linalg.svd(step)
        self.left.copy_(U[:, : self.rank] * S[: self.rank].sqrt())
        self.right.copy_(Vh[: self.rank].T * S[: self.rank].sqrt())
        return self

    def config(self) -> dict[str, Any]:
        """The structure, with the rank."""
        return super().config() | {"rank": self.rank}


class Orthogonal(Discrete):
    """``M`` orthogonal: lengths are kept, every eigenvalue has modulus one."""

    guarantee = "MᵀM = I, |λ| = 1"

    def __init__(self, latent: int, steps: int = 1) -> None:
        super().__init__(latent, steps)
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):  # torch looks at the numbers
            weight = nn.Linear(latent, latent, bias=False)
            self.rotation = parametrizations.orthogonal(weight, orthogonal_map="cayley")
            with torch.no_grad():
                self.rotation.weight = torch.eye(latent)

    def step(self) -> Tensor:
        """M, shape ``(latent, latent)``."""
        weight: Tensor = getattr(self.rotation, "weight")  # noqa: B009, parametrised: not a Parameter
        return weight

    @torch.no_grad()
    def start_from(self, step: Tensor) -> Self:
        """Take the polar factor, the nearest orthogonal matrix."""
        U, _, Vh = torch.linalg.svd(step)
        self.rotation.weight = (U @ Vh).to(self.step())
        return self


class Stable(Operator):
    """``A = S - Sᵀ - L Lᵀ``, ``K(t) = exp(t A)``: no direction grows, at any parameter values.

    ``A + Aᵀ = -2 L Lᵀ ≼ 0``, so the Euclidean length of a latent state never increases. This is
    stronger than Re ω ≤ 0; a stable but transiently growing operator is not of this family. The
    matrix exponential costs O(latent³) in every training step: for large latents take
    :class:`BlockDiagonal`.
    """

    guarantee = "|K(t) z| ≤ |z|, Re ω ≤ 0 for all t ≥ 0"

    def __init__(self, latent: int, steps: int = 1) -> None:
        super().__init__(latent, steps)
        self.turning = nn.Parameter(torch.zeros(latent, latent))
        self.damping = nn.Parameter(0.05 * torch.eye(latent))

    def generator(self) -> Tensor:
        """A, shape ``(latent, latent)``."""
        return self.turning - self.turning.T - self.damping @ self.damping.T

    @without_autocast
    def matrix(self, time: float = 1.0) -> Tensor:
        """``exp(time A)``."""
        return torch.matrix_exp(time * self.generator())

    @torch.no_grad()
    def start_from(self, step: Tensor) -> Self:
        """Take the logarithm of ``step`` with the growing part of its symmetric half removed.

        Where no real logarithm exists the first-order one, ``step - I``, is taken.
        """
        try:
            A = logarithm(step) * self.steps
        except ValueError:
            A = (step - torch.eye(self.latent).to(step)) * self.steps
        values, vectors = torch.linalg.eigh((A + A.T) / 2)
        self.turning.copy_((A - A.T) / 4)
        self.damping.copy_(vectors * (-values).clamp(min=1e-6).sqrt())
        return self


class BlockDiagonal(Operator):
    """2×2 blocks ``exp(-decay·t) · rotation(frequency·t)``; an odd latent ends in a 1×1 block.

    The exponential is in closed form, so a step costs O(latent). The basis is the encoder's to
    find; K(1) is a normal matrix. Decays may be negative (growth).
    """

    guarantee = "ω = -decay ± i·frequency exactly, K(t) normal, O(latent) parameters"

    def __init__(self, latent: int, steps: int = 1) -> None:
        super().__init__(latent, steps)
        self.decay = nn.Parameter(torch.zeros((latent + 1) // 2))
        # Spread over small angles, for equal frequencies would stay equal under equal gradients.
        self.frequency = nn.Parameter(torch.linspace(0, 0.5, latent // 2))

    def matrix(self, time: float = 1.0) -> Tensor:
        """The block-diagonal ``K(time)``."""
        return self.forward(torch.eye(self.latent).to(self.decay), time).T

    def forward(self, latent: Tensor, time: float = 1.0) -> Tensor:
        """``K(time)`` applied to ``(…, latent)`` without forming it."""
        growth = torch.exp(-self.decay * time)
        pairs = self.latent // 2
        even, odd = latent[..., 0 : 2 * pairs : 2], latent[..., 1 : 2 * pairs : 2]
        cos, sin = (self.frequency * time).cos(), (self.frequency * time).sin()
        turned = torch.stack([cos * even - sin * odd, sin * even + cos * odd], -1)
        turned = (turned * growth[:pairs, None]).flatten(-2)
        return torch.cat([turned, latent[..., 2 * pairs :] * growth[pairs:]], -1)

    @torch.no_grad()
    def start_from(self, step: Tensor) -> Self:
        """Take the decay and frequency nearest to each 2×2 diagonal block of ``step``.

        Of an odd latent's last entry the modulus is taken: no real rate gives a negative one.
        """
        for k in range(self.latent // 2):
            block = step[2 * k : 2 * k + 2, 2 * k : 2 * k + 2]
            value = torch.complex(block.trace() / 2, (block[1, 0] - block[0, 1]) / 2)
            omega = torch.log(value + 1e-12) * self.steps
            self.decay[k], self.frequency[k] = -omega.real, omega.imag
        if self.latent % 2:
            self.decay[-1] = -step[-1, -1].abs().clamp(min=1e-6).log() * self.steps
        return self


FAMILIES: dict[str, type[Operator]] = {
    family.__name__: family for family in (Dense, LowRank, Orthogonal, Stable, BlockDiagonal)
}


def operator_from_config(config: dict[str, Any]) -> Operator:
    """An operator of the structure of ``config``, with the family's initial values."""
    arguments = dict(config)
    return FAMILIES[arguments.pop("family")](**arguments)
