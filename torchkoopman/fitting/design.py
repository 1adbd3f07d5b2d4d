"""What an autoencoder is made of: the settings of one, and its training from the first step on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from torchkoopman.fitting.candidates import Candidate, best, judged
from torchkoopman.fitting.latents import polished, step_matrix
from torchkoopman.fitting.reframing import reframed
from torchkoopman.fitting.trainer import Trainer
from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.operators import FAMILIES, operator_from_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from torchkoopman.fitting.losses import LossWeights
    from torchkoopman.koopman.coordinates import Coordinates


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
    """The operator's configuration, as ``operator_from_config`` takes it, without its steps."""
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

    @classmethod
    def of(
        cls,
        family: dict[str, Any],
        hidden: Sequence[int] | None,
        weights: LossWeights,
        learning_rate: float | None,
        decay: float,
        ridge: float,
    ) -> Design:
        """Settings with the defaults of those that are None."""
        # Twice the latent size lost .08 points more on Yin-Yang networks and took 20 % less.
        widths = (4 * family["latent"],) if hidden is None else tuple(hidden)
        # Good at 256 hidden units (Yin-Yang) and at 800 (MNIST); wide layers need smaller steps.
        rate = learning_rate or 1e-2 * min(1.0, (128 / max(widths, default=128)) ** 0.5)
        return cls(family["latent"], widths, family, weights, rate, decay, ridge)

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

    def resumed(
        self,
        trainer: Trainer,
        fresh: Trainer,
        old: Sequence[Coordinates],
        new: Sequence[Coordinates],
        paths: Tensor,
    ) -> Trainer:
        """A training that goes on in new coordinates where another one stands.

        What was learnt goes on with its operator or with the closed form, as predicts better; or
        what ``fresh`` begins with does, where the states have changed too much.

        Args:
            trainer: the training until now.
            fresh: one in the new coordinates that has not begun.
            old: coordinates of the layers until now.
            new: coordinates from now on.
            paths: ``(rows, layers, coordinates)`` in the new ones.
        """
        learnt, operator = reframed(*trainer.averaged(), old, new)
        other = polished(learnt, operator, paths, self.ridge) or operator
        starts = [(learnt, operator), (learnt, other), (fresh.observables, fresh.operator)]
        scores = [judged(Candidate(*start), paths, None) for start in starts]
        observables, operator = starts[best(scores)]
        for part in (observables, operator):
            part.requires_grad_(True)
        settings = fresh.weights, self.learning_rate, self.decay, fresh.tail, fresh.scales
        return Trainer(observables, operator, *settings, trainer.done)
