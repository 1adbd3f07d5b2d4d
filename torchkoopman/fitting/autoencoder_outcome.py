"""What the training of an autoencoder has come to, and whether something else is better."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Literal

from torchkoopman.fitting.autoencoder_state import AutoencoderParts
from torchkoopman.fitting.candidates import SAMPLE, Candidate, Rival, best, much_worse
from torchkoopman.fitting.tails import judging

if TYPE_CHECKING:
    from torch import nn

    from torchkoopman.fitting.trainer import Trainer

_SETTLING = 100
"""Steps of a falling learning rate before a surrogate is made while the data may still change."""


class AutoencoderOutcome(AutoencoderParts):
    """An autoencoder fitter that compares what it has learnt with the closed form."""

    _way: Literal["step", "span"]
    """What trainings are begun with."""

    def _started(self, dynamics: Literal["step", "span"], tail: nn.Module | None) -> Trainer:
        """A training on the reservoir that has not begun."""
        paths, scales = self._intake.reservoir.trained(SAMPLE), self._intake.spreads()
        return self._design.trainer(paths, dynamics, self._generator, tail, scales)

    def _learnt(self, trainer: Trainer) -> Candidate:
        """What a training has come to: averaged weights, and the better of two operators."""
        reservoir, found = self._intake.reservoir, Candidate(*trainer.averaged())
        return found.or_polished(reservoir, self._design.ridge, trainer.tail)

    def _present(self, trainer: Trainer) -> Candidate:
        """What is known now: of data that may still change, what a falling rate would come to."""
        if self._intake.reservoir.halflife is None or trainer.fallen or not trainer.done:
            return self._learnt(trainer)
        draws = self._generator.clone_state()  # what is looked at must not change what comes
        draw = partial(self._intake.reservoir.sample, self.batch, draws)
        found = self._learnt(trainer.settled(_SETTLING, draw))
        if (rival := self._rival(trainer)) is not None:
            found, self._notes = rival.unless(found, self.dynamics != "step")
        self._outcome = found
        return copy.deepcopy(found)

    def _rival(self, trainer: Trainer) -> Rival | None:
        """The closed form to compare with; None where nothing is to be decided."""
        dense = self._design.family["family"] == "Dense"
        return Rival.of(self._intake.reservoir, self._judge(), trainer.done) if dense else None

    def _compare(self, trainer: Trainer, progress: bool) -> None:
        """See whether the training went well, and look for something better if it did not."""
        if (rival := self._rival(trainer)) is None:
            return
        found = self._learnt(trainer)
        score = rival.score(found)
        if much_worse(score, rival.aim):
            other = self._again(trainer.done, progress)
            candidate = self._learnt(other)
            if best([score, rival.score(candidate)]) == 1:
                self._trainer, found = other, candidate
                without = "" if self.tail is None else ", without the tail"
                self._notes = (f"a second training was better than the first{without}",)
        self._outcome, note = rival.unless(found, self.dynamics != "step")
        self._notes += note

    def _again(self, steps: int, progress: bool) -> Trainer:
        """Another training of so many steps: without the tail, or else across the span."""
        span = self.tail is None and self.dynamics == "auto"
        other = self._started("span" if span else self._way, None)
        other.fall(steps)
        draw = partial(self._intake.reservoir.sample, self.batch)
        other.take(steps, draw, "train again" if progress else None, self._processes)
        return other

    def _judge(self) -> nn.Module | None:
        """The tail as a map of the last layer's coordinates."""
        return judging(self._intake.frames[-1], self.tail, self._intake.latest.positions)
