"""What an autoencoder is made of: the settings of one, and its training from the first step on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from torchkoopman.fitting.latents import step_matrix
from torchkoopman.fitting.trainer import Trainer
from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.operators import FAMILIES, operator_from_config

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchkoopman.fitting.losses import LossWeights


def family_of(operator: str, latent: int, rank: int | None) -> dict[str, Any]:
    """A family of operators as ``operator_from_config`` takes it, but for the steps."""
    if operator not in FAMILIES:
        raise ValueError(f"operator={operator!r} is unknown; choose one of {list(FAMILIES)}.")
    family: dict[str, Any] = {"family": operator, "latent": latent}
    if operator == "Dense":
        family["constant"] = True
    if operator == "LowRank":
        family["rank"] = rank or max(1, latent // 4)
    return family


@dataclass(frozen=True)
class Design:
    """Settings that every training of one fitter shares."""

    latent: int
    """Size of the operator."""
    hidden: tuple[int, ...]
    """Widths of the encoder's hidden layers, of the decoder's in reverse."""
    family: dict[str, Any]
    """Of the operator, as ``operator_from_config`` takes it but for its steps."""
    weights: LossWeights
    learning_rate: float
    decay: float
    ridge: float

    def __post_init__(self) -> None:
        if self.latent < 2:
            raise ValueError(
                f"latent={self.latent} is too small; beside the constant take 1 or more."
            )
        if self.weights.inner == 0:
            raise ValueError(
                "LossWeights(inner=0) would leave the inner layers out of a fit with a step for "
                "each of them; say dynamics='span' to fit the first and last layer alone."
            )

    def trainer(
        self,
        paths: Tensor,
        dynamics: Literal["step", "span"],
        generator: torch.Generator,
        tail: nn.Module | None,
        scales: Tensor | None,
    ) -> Trainer:
        """A training that has not begun: networks drawn, K started from its closed form.

        Args:
            paths: ``(rows, layers, coordinates)``, for the closed form.
            dynamics: ``"span"`` leaves the inner layers out.
            generator: draws the networks.
            tail: from coordinates of the last layer to logits.
            scales: of each layer's errors, ``(layers,)``.
        """
        learnt = LearntObservables(
            paths.shape[-1], self.latent, self.hidden, self.family["family"] == "Dense"
        )
        # In float32 before anything is drawn, so that draws do not depend on torch's default.
        learnt.float().initialise(generator)
        steps = 1 if dynamics == "span" else paths.shape[1] - 1
        operator = operator_from_config({**self.family, "steps": steps})
        learnt.to(paths.device)
        operator.to(paths.device, torch.float32)
        operator.start_from(step_matrix(learnt, operator, paths, self.ridge))
        weights = replace(self.weights, inner=0.0) if dynamics == "span" else self.weights
        return Trainer(learnt, operator, weights, self.learning_rate, self.decay, tail, scales)
