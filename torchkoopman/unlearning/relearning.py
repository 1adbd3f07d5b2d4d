"""Relearning: how many steps of training bring a forgotten class back."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from torchkoopman.unlearning.batches import answered, labels_of

if TYPE_CHECKING:
    from torchkoopman.observe.batches import Forward
    from torchkoopman.unlearning.batches import Batches


@dataclass(frozen=True)
class Relearning:
    """How a copy of a network is taught the forgotten classes again.

    Example:
        >>> edited = tk.swap(model, tk.unlearn(surrogate, classes=[2], model=model))
        >>> dots = test.labels == 2
        >>> unseen = [(test.inputs[dots], test.labels[dots])]
        >>> batches = train.loader(500)
        >>> relearning = tk.Relearning(threshold=0.5, limit=100)
        >>> relearning.steps(model, batches, unseen)  # the original forgot nothing
        0
        >>> relearning.steps(edited, batches, unseen) > 0
        True
    """

    threshold: float = 0.9
    """Accuracy on the forgotten classes at which they count as relearnt."""
    learning_rate: float = 1e-3
    """Learning rate of Adam, on all parameters; normalisation layers stay in eval mode."""
    limit: int = 300
    """Gradient steps after which it gives up."""

    def __post_init__(self) -> None:
        if not self.learning_rate > 0 or self.limit < 0:
            raise ValueError(
                f"learning_rate={self.learning_rate} must be above 0, limit={self.limit} 0 or more."
            )

    def steps(
        self, model: nn.Module, batches: Batches, unseen: Batches, forward: Forward | None = None
    ) -> int | None:
        """Gradient steps on batches of all classes until the forgotten ones are back.

        Args:
            model: a copy of it learns; it stays as it is.
            batches: training data of all classes, gone through over and over.
            unseen: batches of the forgotten classes, gone through after every step.
            forward: how to call the model on a batch, if not as a fit does.

        Returns:
            0 if nothing was forgotten; None if the limit was reached before.
        """
        learner = copy.deepcopy(model).eval()
        for parameter in learner.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        optimiser = torch.optim.Adam(learner.parameters(), lr=self.learning_rate)
        step = 0
        while step < self.limit:
            before = step
            for batch in batches:
                if self._back(learner, unseen, forward):
                    return step
                if step == self.limit:
                    return None
                with torch.enable_grad():
                    optimiser.zero_grad(set_to_none=True)
                    logits = answered(learner, batch, forward)
                    labels = labels_of(batch, learner, forward).to(logits.device)
                    loss = nn.functional.cross_entropy(logits, labels.long())
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
                step += 1
            if step == before:
                raise ValueError("there are no training batches, so nothing can be relearnt.")
        return step if self._back(learner, unseen, forward) else None

    @torch.no_grad()
    def _back(self, learner: nn.Module, unseen: Batches, forward: Forward | None) -> bool:
        right = [
            answered(learner, batch, forward).argmax(1).cpu()
            == labels_of(batch, learner, forward).cpu()
            for batch in unseen
        ]
        return bool(torch.cat(right).double().mean() >= self.threshold)
