"""The online Koopman autoencoder: a dictionary learnt from the stream (arXiv 2505.12809)."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Self

import torch

from torchkoopman.fitting.autoencoder_outcome import AutoencoderOutcome
from torchkoopman.fitting.candidates import SAMPLE, Candidate
from torchkoopman.fitting.design import Design, family_of
from torchkoopman.fitting.dynamics import Dynamics, check_dynamics
from torchkoopman.fitting.intake import Intake
from torchkoopman.fitting.latents import evidence_of, span_moments
from torchkoopman.fitting.losses import LossWeights
from torchkoopman.fitting.quality import explained, outside
from torchkoopman.fitting.tails import frozen
from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.span import FitRecord, Span
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.observe.capture import plain_modes
from torchkoopman.observe.interrupts import uninterrupted
from torchkoopman.observe.turns import turn_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from torchkoopman.fitting.trainer import Trainer
    from torchkoopman.koopman.coordinates import Coordinates, Frames
    from torchkoopman.observe.trajectory import Trajectory

Family = Literal["Dense", "LowRank", "Orthogonal", "Stable", "BlockDiagonal"]

_ANEW = 100
"""Steps taken beside those that are due where the data have drifted out of their coordinates."""


class AutoencoderFitter(AutoencoderOutcome):
    """Learns encoder, decoder and operator by gradient steps on a bounded sample of the stream.

    After the Koopman-autoencoder paper (arXiv 2505.12809). The first rows calibrate the layers'
    coordinates; then every update keeps rows in a reservoir and takes steps on batches from it, at
    a steady learning rate. Weights are averaged over steps. :meth:`train` takes further steps at a
    falling rate. One sample in five is held out of all steps, for comparisons.

    Example:
        >>> fitter = tk.AutoencoderFitter(latent=16, hidden=[32])
        >>> loader = train.loader(500)
        >>> tk.fit(model, loader, ["1", "9"], method=fitter, steps=50, progress=False).latent
        16

    Args:
        latent: size of the operator.
        hidden: widths of the encoder's hidden layers (the decoder's in reverse); None for one of
            four times the latent size.
        operator: family of K; only ``"Dense"`` is affine.
        operator_rank: of the family ``LowRank``.
        rank: principal directions kept of each layer.
        frames: one frame for all layers, ``"shared"``, or one for each, ``"aligned"``; by default
            shared where all layers have one width. In a shared frame each layer's errors count
            relative to its own variance.
        dynamics: ``"step"``: one matrix leads from each layer to the next, and inner layers take
            part; ``"span"``: one leads from the first layer to the last, and they do not.
            ``"auto"`` is the step, unless it is much worse at the last layer than the closed form
            across the span.
        weights: of the losses.
        batch: rows of a gradient step.
        tail: the modules from the last layer to the logits, ``(rows, features)`` to
            ``(rows, classes)``, for the loss ``LossWeights.behaviour``. A frozen copy is used.
            Samples must have one position.
        steps_per_update: gradient steps for each trajectory; ½ is one for every other trajectory.
        learning_rate: of AdamW; None for 1e-2, less by the root of the hidden width above 128.
        decay: weight decay of encoder and decoder; the operator has none.
        ridge: relative, of the closed form that K starts from and is polished with.
        replay_bytes: memory of the reservoir.
        calibration: rows held back until coordinates are chosen; None for ten per feature.
        halflife: rows after which a row is kept half as likely; None keeps all alike. Where the
            data leave their coordinates, these are renewed from rows kept for it (``replay_bytes``
            once more), and 100 steps are taken. ``surrogate`` then takes 100 steps of falling rate
            on a copy, and compares it as :meth:`train` does.
        generator: of all randomness; None for one seeded with 0.

    Raises:
        ValueError: an argument out of range.
    """

    contextual = False  # each row is encoded alone

    def __init__(
        self,
        latent: int = 64,
        *,
        hidden: Sequence[int] | None = None,
        operator: Family = "Dense",
        operator_rank: int | None = None,
        rank: int | float = -1,
        frames: Frames = "auto",
        dynamics: Dynamics = "auto",
        weights: LossWeights = LossWeights(),  # noqa: B008, frozen
        tail: nn.Module | None = None,
        batch: int = 128,
        steps_per_update: float = 8,
        learning_rate: float | None = None,
        decay: float = 1e-4,
        ridge: float = 1e-6,
        replay_bytes: int = 128 * 2**20,
        calibration: int | None = None,
        halflife: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        check_dynamics(dynamics)
        if batch < 1 or steps_per_update < 0:
            given = f"batch={batch}, steps_per_update={steps_per_update}"
            raise ValueError(f"{given}: batch must be 1 or more, steps_per_update 0 or more.")
        self.dynamics, self.rank = dynamics, rank
        self._way: Literal["step", "span"] = "span" if dynamics == "span" else "step"
        self.tail = None if tail is None else frozen(tail)
        self.batch = batch
        self.steps_per_update = steps_per_update
        family = family_of(operator, latent, operator_rank)
        self._design = Design.of(family, hidden, weights, learning_rate, decay, ridge)
        self._seeded = generator is None
        self._generator = torch.Generator().manual_seed(0) if generator is None else generator
        self._intake = Intake(rank, frames, calibration, replay_bytes, self._generator, halflife)
        self._trainer: Trainer | None = None
        self._owed = 0.0
        self._outcome: Candidate | None = None  # of the latest comparison, until more rows come
        self._notes: tuple[str, ...] = ()

    def update(self, trajectory: Trajectory) -> Self:
        """Take a trajectory into the reservoir and the steps that are due."""
        with turn_of(self), plain_modes(trajectory.device.type, grad=False):
            with uninterrupted():
                self._intake.add(trajectory)
                if self._processes is None:  # else steps are taken together, by train()
                    self._owed += self.steps_per_update
                self._outcome, self._notes = None, ()
                if self._intake.frames and self._trainer is None:
                    self._trainer = self._started(self._way, self._judge())
                if (before := self._intake.renewed()) is not None:
                    self._renew(before, self._ready())
            self._pay()
        return self

    def train(self, steps: int, *, progress: bool = False) -> Self:
        """Further steps on the reservoir, the learning rate falling linearly to zero.

        After 500 steps or more the result is compared, on held-out samples, with the closed form of
        500 random features. If it is much worse, a second training of as many steps without a tail
        is tried; if that is too, the closed form takes its place, which ``record.notes`` says.
        """
        with turn_of(self), plain_modes(self._intake.latest.device.type, grad=False):
            self._agreed_to_train(steps)
            trainer = self._ready()
            self._outcome, self._notes = None, ()  # of earlier steps, also where these break off
            trainer.fall(steps)
            self._owed = float(steps)
            self._pay(progress)
            if steps:
                self._compare(trainer, progress)
        return self

    @property
    def surrogate(self) -> Surrogate:
        """A copy of what was learnt until now, with moments of the reservoir's latent states.

        A dense operator becomes the closed form on the final latent states if that predicts
        held-out samples no worse, since gradient steps can leave eigenvalues that the data lack.
        """
        with turn_of(self), plain_modes(self._intake.latest.device.type, grad=False):
            intake = self._intake
            trainer = self._ready()
            found = copy.deepcopy(self._outcome) or self._present(trainer)
            learnt = isinstance(found.observables, LearntObservables)
            record = FitRecord(
                "autoencoder" if learnt else "edmd",
                intake.rows,
                losses=dict(trainer.losses) if learnt else {},
                frames=intake.kind,
                dynamics="span" if found.operator.steps == 1 else "step",
                notes=(*self._notes, *intake.notes()),
            )
            frames = copy.deepcopy(intake.frames)
            parts = Span.of(intake.latest), frames, found.observables, found.operator
            data = (
                span_moments(found.observables, *intake.reservoir[:]),
                evidence_of(found.observables, intake.reservoir),
            )
            surrogate = Surrogate(*parts, record, *data)
            surrogate.to(intake.frames[0].weight.dtype)  # of the states, whatever it was learnt in
            left = {layer: each.value for layer, each in outside(surrogate, intake.latest).items()}
            record = replace(record, r2=explained(surrogate, intake.latest), outside=left)
            return Surrogate(*parts, record, *data)

    def _ready(self) -> Trainer:
        """The trainer, started with what came until now if need be."""
        if self._trainer is None:
            if not self._intake.frames:
                self._intake.calibrate()
            self._trainer = self._started(self._way, self._judge())
            self._pay()
        return self._trainer

    def _renew(self, before: list[Coordinates], trainer: Trainer) -> None:
        """Go on in new coordinates with what was learnt, or anew if that is not worth it."""
        tail = None if trainer.tail is None else self._judge()
        fresh = self._started("span" if trainer.operator.steps == 1 else "step", tail)
        paths = self._intake.reservoir.trained(SAMPLE)
        self._trainer = self._design.resumed(trainer, fresh, before, self._intake.frames, paths)
        self._owed += _ANEW if self.steps_per_update else 0

    def _pay(self, progress: bool = False) -> None:
        """Take the steps that are due."""
        if self._trainer is None:
            return
        due = int(self._owed + 1e-9)  # many small parts of a step must sum to whole ones
        self._owed -= due
        draw = partial(self._intake.reservoir.sample, self.batch)
        self._trainer.take(due, draw, "train" if progress else None, self._processes)
