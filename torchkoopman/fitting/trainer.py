"""Gradient steps on a Koopman autoencoder, with a learning rate that rises, holds and falls."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from torchkoopman.fitting.candidates import Candidate
from torchkoopman.fitting.losses import koopman_losses, total_loss
from torchkoopman.koopman.learnt import LearntObservables

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from torchkoopman.fitting.losses import LossWeights
    from torchkoopman.koopman.operator import Operator
    from torchkoopman.observe.processes import Processes

_Tensors = tuple["Tensor", ...] | list["Tensor"]
_RISE = 100
"""Steps over which the learning rate rises to its highest value."""
_INNER = 4
"""Inner layers take part on one row in so many: the first and last layer need the precision."""
_CLIP = 3.0
"""A gradient longer than so many times the running mean length is shortened to that. One batch's
loss can grow a thousandfold in a step, for K enters with its powers; unshortened, that gradient
fills the optimiser's momentum and moves all weights for many steps."""
_OPERATOR_SHARE = 1.0
_MEMORY = 0.99
"""Weights are averaged over about the last 1 / (1 - memory) steps, so that they are good at any
time, also while the learning rate is high; …"""
_WARM = 9
"""… and over about one in so many of all steps while these are few, for what weights were at the
start is no part of what was learnt."""


class Trainer:
    """Optimiser, schedule, running average of the weights, and the latest losses.

    A trainer that goes on where another ended is given the steps ``done`` until then.
    """

    def __init__(
        self,
        observables: LearntObservables,
        operator: Operator,
        weights: LossWeights,
        learning_rate: float,
        decay: float,
        tail: nn.Module | None = None,
        scales: Tensor | None = None,
        done: int = 0,
    ) -> None:
        self.observables = observables
        self.operator = operator
        self.weights = weights
        self.tail = tail
        self.scales = scales
        self.learning_rate = learning_rate
        self.done = self._begun = done
        self.losses: dict[str, float] = {}
        self._fall = range(0)
        self._length = 0.0
        """Running mean length of the gradient."""
        self._average = AveragedModel(
            nn.ModuleList([observables, operator]),
            multi_avg_fn=_approach,
        )
        # The paper's weight decay acts on the operator too, which pulls eigenvalues towards zero.
        self._optimiser = torch.optim.AdamW(
            [
                {"params": list(observables.parameters()), "weight_decay": decay, "share": 1.0},
                {
                    "params": list(operator.parameters()),
                    "weight_decay": 0.0,
                    "share": _OPERATOR_SHARE,
                },
            ],
            lr=learning_rate,
            betas=(0.9, 0.99),
            fused=True,
        )

    def state_dict(self) -> dict[str, Any]:
        """Weights, their average, optimiser and schedule, as tensors and plain types."""
        return {
            "networks": Candidate(self.observables, self.operator).state_dict(),
            "average": dict(self._average.state_dict()),
            "optimiser": self._optimiser.state_dict(),
            "scales": self.scales,
            "tail": self.tail is not None,
            "inner": self.weights.inner,
            "done": self.done,
            "begun": self._begun,
            "fall": [self._fall.start, self._fall.stop],
            "length": self._length,
            "losses": dict(self.losses),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        decay = self._optimiser.param_groups[0]["weight_decay"]
        settings = self.weights, self.learning_rate, decay, self.tail
        return Trainer.restored, (self.state_dict(), *settings)

    @classmethod
    def restored(
        cls,
        state: Mapping[str, Any],
        weights: LossWeights,
        learning_rate: float,
        decay: float,
        tail: nn.Module | None,
    ) -> Trainer:
        """The trainer that :meth:`state_dict` is of; the settings are those it was made with."""
        networks = Candidate.of(state["networks"])
        assert isinstance(networks.observables, LearntObservables)
        parts = networks.observables.requires_grad_(True), networks.operator.requires_grad_(True)
        weights = replace(weights, inner=state["inner"])
        tail = tail if state["tail"] else None
        trainer = cls(*parts, weights, learning_rate, decay, tail, state["scales"], state["begun"])
        trainer._average.load_state_dict(state["average"])
        trainer._optimiser.load_state_dict(state["optimiser"])
        trainer.done, trainer._fall = state["done"], range(*state["fall"])
        trainer._length, trainer.losses = state["length"], dict(state["losses"])
        return trainer

    def fall(self, steps: int) -> None:
        """Let the learning rate fall linearly to zero over the next ``steps`` steps."""
        self._fall = range(self.done, self.done + steps)

    def settled(self, steps: int, draw: Callable[[], Tensor]) -> Trainer:
        """A copy that takes so many more steps with a falling rate; this one stays where it is."""
        other = copy.deepcopy(self)
        other.fall(steps)
        other.take(steps, draw, None)
        return other

    @property
    def fallen(self) -> bool:
        """Whether the learning rate has just fallen to zero."""
        return len(self._fall) > 0 and self.done == self._fall.stop

    def averaged(self) -> tuple[LearntObservables, Operator]:
        """Copies of observables and operator with their averaged weights, without gradients."""
        pair = copy.deepcopy(self._average.module).requires_grad_(False)
        return pair[0], pair[1]  # type: ignore[index]

    def take(
        self,
        steps: int,
        draw: Callable[[], Tensor],
        title: str | None,
        processes: Processes | None = None,
    ) -> None:
        """Take steps on batches drawn one by one; a progress bar shows them under a title.

        Args:
            steps: how many; of several processes all take as many.
            draw: the next batch, the same one in all of them.
            title: of the progress bar; None for none.
            processes: those that share every step.
        """
        losses: dict[str, Tensor] = {}
        for _ in tqdm(range(steps), title, disable=title is None):
            losses = self.step(draw(), processes)
        if losses:
            self.losses = {term: value.item() for term, value in losses.items()}

    def step(self, paths: Tensor, processes: Processes | None = None) -> dict[str, Tensor]:
        """One gradient step on paths ``(rows, layers, coordinates)``; returns the loss terms.

        Of several processes each computes the gradient of a part of the rows; the step is taken
        along their mean, so that all have the same weights after it, bit by bit.
        """
        paths, share = (paths, 1.0) if processes is None else processes.share(paths)
        with torch.enable_grad():
            inner_rows = max(1, len(paths) // _INNER)
            losses = koopman_losses(
                paths,
                self.observables,
                self.operator,
                self.weights,
                self.tail,
                inner_rows,
                self.scales,
            )
            loss = total_loss(losses, self.weights)
            for group in self._optimiser.param_groups:
                group["lr"] = self.learning_rate * self._rate() * group["share"]
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if processes is not None:
                losses = {term: value.detach() for term, value in losses.items()}
                gradients = [each.grad for each in self._parameters() if each.grad is not None]
                processes.weighted_sum([*gradients, *losses.values()], share)
            self._shorten()
            self._optimiser.step()
        self._average.update_parameters(nn.ModuleList([self.observables, self.operator]))
        self.done += 1
        return {term: value.detach() for term, value in losses.items()}

    def _shorten(self) -> None:
        """Shorten the gradient to a multiple of the running mean length."""
        longest = _CLIP * self._length if self._length else float("inf")
        length = nn.utils.clip_grad_norm_(self._parameters(), longest).clamp(max=longest)
        share = max(1 / (self.done - self._begun + 1), 1 - _MEMORY)
        self._length += share * (length.item() - self._length)

    def _parameters(self) -> list[nn.Parameter]:
        return [each for group in self._optimiser.param_groups for each in group["params"]]

    def _rate(self) -> float:
        """The current share of the highest learning rate."""
        rise = min(1.0, (self.done - self._begun + 1) / _RISE)
        if self.done not in self._fall:
            return rise
        return rise * (self._fall.stop - self.done) / len(self._fall)


@torch.no_grad()
def _approach(average: _Tensors, current: _Tensors, seen: Tensor | int) -> None:
    """Lead averages of so many weights seen towards the next ones; a function, to be pickled."""
    memory = min(_MEMORY, (1 + int(seen)) / (1 + _WARM + int(seen)))
    torch._foreach_lerp_(average, current, 1 - memory)
