"""The online Koopman autoencoder: a dictionary learnt from the stream (S1, arXiv 2505.12809)."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from torchkoopman.fitting.calibration import Calibration, same_layers
from torchkoopman.fitting.closed_form import NO_DATA
from torchkoopman.fitting.latents import polish, span_moments, step_matrix
from torchkoopman.fitting.losses import LossWeights
from torchkoopman.fitting.outliers import BOUND, plausible, without
from torchkoopman.fitting.quality import unexplained
from torchkoopman.fitting.replay import Reservoir
from torchkoopman.fitting.trainer import Trainer
from torchkoopman.koopman.coordinates import CoordinateOptions, Coordinates
from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.operators import FAMILIES, operator_from_config
from torchkoopman.koopman.span import FitRecord, Span
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.observe.capture import plain_modes

from torchkoopman.observe.trajectory import Trajectory

if TYPE_CHECKING:
    from collections.abc import Sequence

Family = Literal["Dense", "LowRank", "Orthogonal", "Stable", "BlockDiagonal"]

_SAMPLE = 8192
"""Rows of the reservoir that the closed form of K and its comparison take."""


class AutoencoderFitter:
    """Learns encoder, decoder and operator by gradient steps on a bounded sample of the stream.

    The first rows calibrate the layers' coordinates. After that every update offers its rows to a
    reservoir and takes some steps on batches drawn from it, at a steady learning rate; the weights
    are averaged over steps, so that the surrogate is good at any time. At the stream's end
    :meth:`train` takes further steps on the reservoir with a falling rate, which makes it better.

    Args:
        latent: size of the operator.
        hidden: widths of the encoder's hidden layers (the decoder's in reverse); None for one of
            twice the latent size.
        operator: family of K, see ``torchkoopman.koopman.operators``; only ``Dense`` is affine.
        operator_rank: of the family ``LowRank``.
        rank: principal directions kept of each layer.
        weights: of the losses; ``LossWeights(inner=0)`` fits the first and last layer alone.
        batch: rows of a gradient step.
        tail: what follows the last layer up to the logits, ``(rows, features)`` to
            ``(rows, classes)``: predictions are then also judged by what the network makes of them
            (``LossWeights.behaviour``). A frozen copy is used. Samples must have one position.
        steps_per_update: gradient steps for each trajectory that comes; one half is a step for
            every other.
        learning_rate: of AdamW; None for 1e-2, less by the root of the hidden width above 128.
        decay: weight decay of encoder and decoder; the operator has none.
        ridge: relative, of the closed form that K starts from and is polished with.
        replay_bytes: memory of the reservoir.
        calibration: rows held back until coordinates are chosen; None for ten per feature.
        generator: of all randomness; None for one seeded with 0.
    """

    def __init__(
        self,
        latent: int = 64,
        *,
        hidden: Sequence[int] | None = None,
        operator: Family = "Dense",
        operator_rank: int | None = None,
        rank: int | float = -1,
        weights: LossWeights = LossWeights(),  # noqa: B008, frozen
        tail: nn.Module | None = None,
        batch: int = 128,
        steps_per_update: float = 8,
        learning_rate: float | None = None,
        decay: float = 1e-4,
        ridge: float = 1e-6,
        replay_bytes: int = 128 * 2**20,
        calibration: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if operator not in FAMILIES:
            raise ValueError(f"operator={operator!r} is unknown; choose one of {list(FAMILIES)}.")
        if latent < 2:
            raise ValueError(f"latent={latent} is too small; beside the constant take 1 or more.")
        if batch < 1 or steps_per_update < 0:
            raise ValueError(
                f"batch={batch} must be 1 or more, steps_per_update={steps_per_update} 0 or more."
            )
        self.latent = latent
        self.hidden = (2 * latent,) if hidden is None else tuple(hidden)
        self.weights = weights
        self.tail = None if tail is None else _frozen(tail)
        self.batch = batch
        self.steps_per_update = steps_per_update
        # Good at 128 hidden units (Yin-Yang) and at 800 (MNIST); wide layers need smaller steps.
        self.learning_rate = learning_rate or 1e-2 * min(
            1.0, (128 / max(self.hidden, default=128)) ** 0.5
        )
        self.decay = decay
        self._family: dict[str, Any] = {"family": operator, "latent": latent}
        if operator == "Dense":
            self._family["constant"] = True
        if operator == "LowRank":
            self._family["rank"] = operator_rank or max(1, latent // 4)
        self.ridge = ridge
        self._generator = torch.Generator().manual_seed(0) if generator is None else generator
        self._calibration = Calibration(CoordinateOptions(rank), calibration)
        self._reservoir = Reservoir(replay_bytes, self._generator)
        self._latest: Trajectory | None = None
        self._frames: list[Coordinates] = []
        self._trainer: Trainer | None = None
        self._owed = 0.0
        self._left_out = 0

    def update(self, trajectory: Trajectory) -> Self:
        """Take a trajectory into the reservoir and the steps that are due."""
        if self._latest is not None:
            same_layers(self._latest.layers, trajectory)
        self._latest = trajectory
        self._owed += self.steps_per_update
        with plain_modes(trajectory.device.type, grad=False):
            if self._trainer is not None:
                self._store(trajectory)
            elif self._calibration.add(trajectory):
                self._start()
            self._pay()
        return self

    @property
    def steps(self) -> int:
        """Gradient steps taken until now."""
        return 0 if self._trainer is None else self._trainer.done

    def train(self, steps: int, *, progress: bool = False) -> Self:
        """Further steps on the reservoir, the learning rate falling linearly to zero."""
        with plain_modes(self._followed().device.type, grad=False):
            self._ready().fall(steps)
            self._owed = float(steps)
            self._pay(progress)
        return self

    @property
    def surrogate(self) -> Surrogate:
        """What was learnt until now: a copy, with moments of the reservoir's latent states.

        A dense operator is polished: the closed form on the final latent states takes its place if
        it predicts the states of a sample of the reservoir better.
        """
        with plain_modes(self._followed().device.type, grad=False):
            return self._surrogate()

    def _surrogate(self) -> Surrogate:
        trainer, latest = self._ready(), self._followed()
        observables, operator = trainer.averaged()
        sample, _ = self._reservoir[:_SAMPLE]
        operator = polish(observables, operator, sample, self.weights, self.ridge)
        record = FitRecord(
            "autoencoder", self._reservoir.seen, losses=dict(trainer.losses), notes=self._notes()
        )
        surrogate = Surrogate(
            Span.of(latest),
            copy.deepcopy(self._frames),
            observables,
            operator,
            record,
            span_moments(observables, *self._reservoir[:]),
        )
        surrogate.to(self._frames[0].weight.dtype)  # of the states, whatever it was learnt in
        surrogate.record = replace(record, fvu=unexplained(surrogate, latest))
        return surrogate

    def _followed(self) -> Trajectory:
        """The latest trajectory."""
        if self._latest is None:
            raise ValueError(NO_DATA)
        return self._latest

    def _ready(self) -> Trainer:
        """The trainer, started with what came until now if need be."""
        if self._trainer is None:
            self._start()
            self._pay()
        assert self._trainer is not None
        return self._trainer

    def _start(self) -> None:
        """Choose coordinates, draw the networks, and start K from the closed form."""
        self._calibration.held = self._usable(self._calibration.held)
        self._frames, held = self._calibration.finish()
        device = held[0].device
        for trajectory in held:
            self._store(trajectory)
        constant = self._family["family"] == "Dense"
        observables = LearntObservables(self._frames[0].size, self.latent, self.hidden, constant)
        observables.float().initialise(self._generator)  # of the same draws whatever the default
        steps = 1 if self.weights.inner == 0 else len(self._frames) - 1
        operator = operator_from_config({**self._family, "steps": steps})
        observables.to(device)
        operator.to(device, torch.float32)
        sample, _ = self._reservoir[:_SAMPLE]
        operator.start_from(step_matrix(observables, operator, sample, self.ridge))
        self._trainer = Trainer(
            observables, operator, self.weights, self.learning_rate, self.decay, self._judge()
        )

    def _judge(self) -> nn.Module | None:
        """The tail as a map of the last layer's coordinates."""
        if self.tail is None:
            return None
        if self._followed().positions != 1:
            raise ValueError(
                f"tail= judges one row at a time, but samples have {self._followed().positions} "
                "positions; leave the tail out, or flatten them with layout='b ... -> b 1 (...)'."
            )
        return nn.Sequential(_Decoded(copy.deepcopy(self._frames[-1]).float()), self.tail)

    def _store(self, trajectory: Trajectory) -> None:
        """Offer a trajectory's rows to the reservoir, in coordinates; those far out are left out."""
        paths = torch.stack(
            [
                frame(rows.to(frame.weight.dtype)).float()
                for frame, rows in zip(self._frames, trajectory.rows().values(), strict=True)
            ],
            1,
        )
        good = (paths.abs() <= BOUND).flatten(1).all(1)  # false for what is not a number
        labels = trajectory.row_labels()
        if not good.all():
            self._leave_out(int((~good).sum()))
            paths, labels = paths[good], None if labels is None else labels[good]
            self._latest = without(trajectory, good)
        self._reservoir.add(paths, labels)

    def _usable(self, held: list[Trajectory]) -> list[Trajectory]:
        """Trajectories held back for the calibration, without the rows that would spoil it.

        Raises:
            ValueError: none is left.
        """
        if not held:
            return held
        together = Trajectory.concatenate(held)
        good = plausible(together)
        if good.all():
            return held
        if not good.any():
            raise ValueError(
                f"none of the {len(good)} rows that came first is finite in all layers "
                f"{together.layers}, so there is nothing to choose coordinates from. Look for the "
                "layer that overflows, or stream states that do not."
            )
        self._leave_out(int((~good).sum()))
        sizes = [int(each.full_mask().sum()) for each in held]
        kept = [without(*pair) for pair in zip(held, torch.split(good, sizes), strict=True)]
        self._latest = kept[-1]
        return kept

    def _notes(self) -> tuple[str, ...]:
        """What the record says of the fit."""
        if not self._left_out:
            return ()
        rows = self._left_out + self._reservoir.seen
        return (
            f"{self._left_out} of {rows} rows were left out: not finite, or more than {BOUND:.0e} "
            "deviations from the others.",
        )

    def _leave_out(self, rows: int) -> None:
        """Count rows that are left out, and say so at the first of them."""
        if not self._left_out:
            warnings.warn(
                f"{rows} rows are not finite or lie more than {BOUND:.0e} deviations from the "
                "others; the autoencoder leaves such rows out (record.notes counts them).",
                RuntimeWarning,
                stacklevel=3,
            )
        self._left_out += rows

    def _pay(self, progress: bool = False) -> None:
        """Take the steps that are due."""
        if self._trainer is None:
            return
        losses: dict[str, Tensor] = {}
        due = int(self._owed + 1e-9)  # many small parts of a step must sum to whole ones
        for _ in tqdm(range(due), "train", disable=not progress):
            losses = self._trainer.step(self._reservoir.sample(self.batch))
        self._owed -= due
        if losses:
            self._trainer.losses = {term: value.item() for term, value in losses.items()}


def _frozen(tail: nn.Module) -> nn.Module:
    """A copy that takes no gradients and has the precision that the fit has."""
    device = next((each.device.type for each in tail.parameters()), "cpu")
    with plain_modes(device, grad=False):
        return copy.deepcopy(tail).eval().requires_grad_(False).float()


class _Decoded(nn.Module):
    """Coordinates back to features, as a module."""

    def __init__(self, frame: Coordinates) -> None:
        super().__init__()
        self.frame = frame

    def forward(self, coordinates: Tensor) -> Tensor:
        return self.frame.inverse(coordinates)
