"""Training of the square layers before a layer: the terms of the loss, and their weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from torchkoopman.scaling.layer import SquareStep

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torchkoopman.scaling.layer import ScaledLayer

_RIDGE = 1e-4
"""Relative ridge of the affine map in the loss, so that no batch is interpolated."""


@dataclass(frozen=True)
class ScalingRecipe:
    """How square layers before a layer are trained; :meth:`published` is how the authors do it.

    The sum is divided by the variance of the layer's output, so that ``function`` and ``linear``
    mean the same at any scale.

    Example:
        >>> blocks = torch.nn.Sequential(model[:2], model[2:4], model[4:])
        >>> recipe = tk.scaling.ScalingRecipe(norms=0.1, steps=20)
        >>> batches = train.loader(500)
        >>> scaled = tk.scaling.scale_layer(blocks, "1", batches, squares=2, recipe=recipe)
        >>> scaled.losses.keys()
        dict_keys(['function', 'linear', 'norms'])

    Raises:
        ValueError: a setting out of range.
    """

    function: float = 1.0
    """Weight of Huber's loss between the layer's output after the square layers and without them,
    so that the network keeps its function."""
    linear: float = 1.0
    """Weight of the squared error of the best affine map from the last square layer's state to the
    layer's output, the part that no linear operator can predict. The paper has no such term."""
    norms: float = 0.0
    """Weight of ``(|squares| - |layer|)²``, the norms of all parameters of each."""
    residual: bool = True
    """Square layers ``x + σ(W x + b)``, which keep the function at the start, instead of
    ``σ(W x + b)``, which begin with a random one."""
    batch_norm: bool = False
    """Normalise before the activation while training, and fold that into the square layer
    afterwards. Without it, ten plain ReLU layers in a row mostly end with zero gradients."""
    steps: int = 1000
    """Gradient steps of AdamW, without weight decay."""
    batch: int | None = None
    """Rows of a gradient step; None for 1 000, or four per feature if that is more."""
    learning_rate: float | None = None
    """Its highest value; None for 0.04 / √features."""
    betas: tuple[float, float] = (0.9, 0.999)
    """The betas of AdamW."""
    one_cycle: bool = True
    """Let the learning rate rise and fall; False keeps it at its highest."""

    def __post_init__(self) -> None:
        counts = [self.steps] if self.batch is None else [self.steps, self.batch]
        if not all(isinstance(each, Integral) for each in counts):
            raise TypeError(
                f"steps={self.steps!r} and batch={self.batch!r} must be whole numbers; batch=None "
                "chooses it by the layer's width."
            )
        if self.steps < 0 or (self.batch is not None and self.batch < 1):
            raise ValueError(
                f"steps={self.steps} must be 0 or more, batch={self.batch} 1 or more; "
                "batch=None chooses it by the layer's width."
            )
        weights = (self.function, self.linear, self.norms)
        if min(weights) < 0 or self.function + self.linear == 0:
            raise ValueError(
                f"the weights (function, linear, norms) are {weights}; none may be negative, and "
                "one of the first two must be positive, for the norms alone know nothing of the "
                "layer."
            )

    @classmethod
    def published(cls) -> ScalingRecipe:
        """The authors' way (arXiv 2409.01308), for Yin-Yang: 3 000 epochs of 2 batches.

        For MNIST replace ``learning_rate=3e-2, batch=4096, steps=450, betas=(0.9, 0.999)``. The
        paper's loss is Huber's with the norms; the batch normalisation is in the authors' later
        code, which halves the learning rate after 500 epochs without progress; here it stays.
        """
        return cls(
            linear=0.0,
            norms=10.0,
            residual=False,
            batch_norm=True,
            steps=6000,
            batch=1000,
            learning_rate=2e-3,
            betas=(0.8, 0.8),
            one_cycle=False,
        )

    def terms(self, scaled: ScaledLayer, inputs: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        """The terms of positive weight: ``"function"``, ``"linear"``, ``"norms"``, undivided.

        Args:
            scaled: the layer with its steps.
            inputs: of the layer, ``(batch, …, features)``.
            outputs: the layer's own, ``(batch, …, features')``.
        """
        end = scaled.path(inputs)[-1]
        terms = {}
        if self.function:
            kept = scaled.end(end).to(outputs.dtype)
            terms["function"] = nn.functional.huber_loss(kept, outputs)
        if self.linear:
            terms["linear"] = affine_error(end.flatten(0, -2), outputs.flatten(0, -2))
        if self.norms:
            norms = (_norm(part.parameters()) for part in (scaled.steps, scaled.layer))
            terms["norms"] = (next(norms) - next(norms)).square()
        return terms


def train_steps(
    scaled: ScaledLayer,
    inputs: Tensor,
    outputs: Tensor,
    recipe: ScalingRecipe,
    generator: torch.Generator,
) -> dict[str, float]:
    """Train the steps of a scaled layer in place, and nothing else; they end in eval mode, folded.

    Args:
        scaled: its layer's parameters are frozen.
        inputs: of the layer, ``(samples, …, features)``.
        outputs: the layer's own, ``(samples, …, features')``.
        recipe: how.
        generator: draws the batches.

    Returns:
        Term → its value over the output's variance, in the last update.

    Raises:
        ValueError: the batch has no more rows than features, which any affine map would fit.
        RuntimeError: the training diverged.
    """
    batch = _batch_size(inputs, recipe)
    variance = _variance(outputs)
    optimiser, schedule = _optimiser(scaled.steps, inputs.shape[-1], recipe)
    scaled.steps.train()
    terms: dict[str, Tensor] = {}
    for _ in range(recipe.steps):
        drawn = torch.randint(len(inputs), (batch,), generator=generator).to(inputs.device)
        terms = recipe.terms(scaled, inputs[drawn], outputs[drawn])
        weighted = [getattr(recipe, term) * value for term, value in terms.items()]
        optimiser.zero_grad(set_to_none=True)
        (torch.stack(weighted).sum() / variance).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if schedule is not None:
            schedule.step()
    for step in scaled.steps.eval():
        if isinstance(step, SquareStep):
            step.fold()
    losses = {term: (value / variance).item() for term, value in terms.items()}
    if not all(map(math.isfinite, losses.values())):
        raise RuntimeError(f"the training of the steps diverged ({losses}); lower learning_rate.")
    return losses


def _batch_size(inputs: Tensor, recipe: ScalingRecipe) -> int:
    """Samples of a batch."""
    features = inputs.shape[-1]
    positions = inputs[0].numel() // features
    rows = recipe.batch or max(1000, 4 * features)
    batch = min(len(inputs), math.ceil(rows / positions))
    if recipe.linear and batch * positions <= features:
        raise ValueError(
            f"{batch * positions} rows make a batch, but the layer has {features} features; give "
            "more data, or a recipe with a larger batch."
        )
    return batch


def _optimiser(
    steps: nn.Module, features: int, recipe: ScalingRecipe
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]:
    rate = recipe.learning_rate or 0.04 / features**0.5
    optimiser = torch.optim.AdamW(
        steps.parameters(), lr=rate, betas=recipe.betas, weight_decay=0.0, fused=True
    )
    if not (recipe.one_cycle and recipe.steps):
        return optimiser, None
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=recipe.steps, cycle_momentum=False
    )


def affine_error(states: Tensor, outputs: Tensor) -> Tensor:
    """Mean squared error of the best affine map from states to outputs, a function of the states.

    The map is solved for in closed form, with gradients through the solution (variable projection,
    Golub & Pereyra 1973): the steps are trained for what the fit will make of them.

    Args:
        states: ``(rows, features)``.
        outputs: ``(rows, features')``.
    """
    states, targets = states.double(), outputs.double()
    states, targets = states - states.mean(0), targets - targets.mean(0)
    gram = states.T @ states
    # The tiny rest keeps a dead path, whose states do not vary, from being singular.
    ridge = _RIDGE * gram.diagonal().mean() + torch.finfo(gram.dtype).tiny ** 0.5
    regularised = gram + ridge * torch.eye(len(gram)).to(gram)
    weight = torch.linalg.solve(regularised, states.T @ targets)
    error: Tensor = (states @ weight - targets).square().mean()
    return error.to(outputs.dtype)


def _variance(outputs: Tensor) -> Tensor:
    rows = outputs.flatten(0, -2)
    return (rows - rows.mean(0)).square().mean()


def _norm(parameters: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm of all parameters together."""
    squares = [parameter.square().sum() for parameter in parameters]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros(())
