"""Candidates for a surrogate, judged on paths that none of them was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch

from torchkoopman.fitting.latents import polished, step_matrix
from torchkoopman.fitting.losses import divergence
from torchkoopman.fitting.quality import Unexplained
from torchkoopman.koopman.feature_maps import RandomFeatures
from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.koopman.operators import Dense, operator_from_config
from torchkoopman.tables import qualities

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from torchkoopman.fitting.replay import Reservoir
    from torchkoopman.koopman.operator import Operator

_RIDGE = 1e-7
"""The same as EDMDFitter's."""
_FACTOR, _FLOOR, _FLOOR_BEHAVIOUR = 3.0, 0.02, 0.004
"""The autoencoder is much worse if its error is over _FACTOR times the closed form's and a floor
more; errors are ``1 - R²`` of the last layer, or nats. On Yin-Yang networks the closed form leaves
.006 to .02 and .004 to .01 nats, good trainings up to twice that, and a failed one .12 and .06
nats."""
SAMPLE = 8192
"""Rows of the reservoir that closed forms and comparisons take."""
_FEW, _UNFINISHED = 100, 500
"""With fewer paths held out nothing is decided on them, for their score would be chance; nor after
fewer steps, for such a training is not meant to be finished."""
_ALIKE = 1.02
"""Errors within this ratio are taken as equal."""
_GUARD = 1.5
"""A candidate that explains the states so many times worse than another is not taken for what the
tail says: its prediction is right for a network that has no other use for it."""


@dataclass(frozen=True)
class Candidate:
    """Observables and an operator."""

    observables: LearntObservables | Dictionary
    operator: Operator

    def state_dict(self) -> dict[str, Any]:
        """Both by their structure and tensors."""
        parts = self.observables, self.operator
        return {
            "structures": [part.config() for part in parts],
            "tensors": [dict(part.state_dict()) for part in parts],
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Candidate:
        """The candidate that :meth:`state_dict` is of; its parameters take no gradients."""
        observables, operator = state["structures"]
        kind = LearntObservables if observables["kind"] == "learnt" else Dictionary
        found = cls(kind.from_config(observables), operator_from_config(operator))
        for part, tensors in zip(vars(found).values(), state["tensors"], strict=True):
            part.to(next(iter(tensors.values()))).load_state_dict(tensors)
            part.requires_grad_(False)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return Candidate.of, (self.state_dict(),)  # torch refuses to pickle parametrised modules

    def or_polished(self, reservoir: Reservoir, ridge: float, tail: nn.Module | None) -> Candidate:
        """This one, or with the closed form on its latent states if that predicts no worse."""
        paths, known = reservoir.held_out(SAMPLE), reservoir.trained(SAMPLE)
        other = polished(self.observables, self.operator, known, ridge)
        return self.rather_with(other, paths, tail)

    def rather_with(
        self, operator: Operator | None, paths: Tensor, tail: nn.Module | None
    ) -> Candidate:
        """This candidate with another operator, if that predicts the paths no worse."""
        if operator is None or len(paths) == 0:
            return self
        other = Candidate(self.observables, operator)
        found, own = (judged(each, paths, tail) for each in (other, self))
        layers = mean(found.unexplained) <= _ALIKE * mean(own.unexplained)
        return other if layers and found.error <= _ALIKE * own.error else self


@dataclass(frozen=True)
class Score:
    """How well a candidate predicts paths it was not trained on."""

    unexplained: tuple[float, ...]
    """``1 - R²`` of each later layer that the operator reaches in whole steps, first to last."""
    divergence: float | None
    """Kullback–Leibler divergence, nats, of the classes that the tail makes of the prediction from
    those it makes of the last layer; None without a tail."""

    @property
    def error(self) -> float:
        """What decides: the divergence, or without a tail the last layer's ``1 - R²``."""
        return self.unexplained[-1] if self.divergence is None else self.divergence


@torch.no_grad()
def judged(candidate: Candidate, paths: Tensor, tail: nn.Module | None) -> Score:
    """Predict paths ``(rows, layers, coordinates)`` from their first layer."""
    steps = paths.shape[1] - 1
    start = candidate.observables.encode(paths[:, 0])
    unexplained, prediction = [], start
    for layer in range(1, steps + 1):
        if candidate.operator.exact_at(layer / steps):
            prediction = candidate.observables.decode(candidate.operator(start, layer / steps))
            unexplained.append(Unexplained().update(prediction, paths[:, layer]).value)
    behaviour = None if tail is None else divergence(tail(paths[:, -1]), tail(prediction)).item()
    return Score(tuple(unexplained), behaviour)


def best(scores: Sequence[Score]) -> int:
    """The number of the best: by what the tail says among those that explain the states alike.

    Without a tail by ``1 - R²`` of all layers together. A score that is not finite is the worst.
    """
    layers = [mean(score.unexplained) for score in scores]
    if scores[0].divergence is None:
        errors = layers
    else:
        limit = _GUARD * min(layers)
        errors = [
            score.error if layer <= limit else float("inf")
            for score, layer in zip(scores, layers, strict=True)
        ]
    finite = [error if isfinite(error) else float("inf") for error in errors]
    return finite.index(min(finite))


def much_worse(score: Score, aim: Score) -> bool:
    """Whether a training has failed: far worse than the closed form, or no better than a mean.

    Somewhat worse at the last layer is the price of one step for all layers, and no failure.
    """
    floor = _FLOOR if score.divergence is None else _FLOOR_BEHAVIOUR
    fair = score.error <= _FACTOR * aim.error + floor and max(score.unexplained) < 1
    return not fair  # also of what is not a number


def lost_to(score: Score, aim: Score, taken: bool) -> str:
    """What a record says where the closed form was much better."""
    closed, ours = qualities(1 - aim.unexplained[-1], 1 - score.unexplained[-1])
    tail = ""
    if score.divergence is not None and aim.divergence is not None:
        tail = f", a divergence of {aim.divergence:.3g} against {score.divergence:.3g} nats"
    return (
        f"on paths held out the closed form of 500 random features has R² {closed} at the last "
        f"layer against {ours} of the autoencoder{tail}: "
        + ("it stands in its place" if taken else "take dynamics='auto' or 'span' to have it")
    )


@torch.no_grad()
def closed_form(paths: Tensor) -> Candidate | None:
    """EDMD with 500 random features from the first layer to the last; None with too few paths."""
    generator = torch.Generator().manual_seed(0)
    dictionary = Dictionary([RandomFeatures()]).build(paths.shape[-1], generator).to(paths)
    if len(paths) <= dictionary.latent:
        return None
    operator = Dense(dictionary.latent, 1, constant=True).to(paths)
    operator.start_from(step_matrix(dictionary, operator, paths, _RIDGE))
    return Candidate(dictionary, operator.requires_grad_(False))


@dataclass(frozen=True)
class Rival:
    """The closed form, beside which a training is judged on paths that neither has seen."""

    candidate: Candidate
    aim: Score
    """How well it predicts the paths."""
    paths: Tensor
    """``(rows, layers, coordinates)``."""
    tail: nn.Module | None

    @classmethod
    def of(cls, reservoir: Reservoir, tail: nn.Module | None, steps: int) -> Rival | None:
        """The closed form of a reservoir; None where nothing is to be decided.

        Args:
            reservoir: its paths.
            tail: from coordinates of the last layer to logits.
            steps: that the training beside it has taken.
        """
        paths = reservoir.held_out(SAMPLE)
        if len(paths) < _FEW or steps < _UNFINISHED:
            return None
        if (candidate := closed_form(reservoir.trained(SAMPLE))) is None:
            return None
        return cls(candidate, judged(candidate, paths, tail), paths, tail)

    def score(self, candidate: Candidate) -> Score:
        """How well another one predicts the same paths."""
        return judged(candidate, self.paths, self.tail)

    def unless(self, found: Candidate, taken: bool) -> tuple[Candidate, tuple[str, ...]]:
        """What was found, or this one if that is much worse; and what a record says of it.

        Args:
            found: what a training came to.
            taken: whether this one may take its place; else the record says what that costs.
        """
        score = self.score(found)
        if not much_worse(score, self.aim):
            return found, ()
        return self.candidate if taken else found, (lost_to(score, self.aim, taken),)
