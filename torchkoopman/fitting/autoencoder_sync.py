"""How the autoencoders of many processes become one: one frame, one reservoir, one training.

Each process streams its shard into a reservoir of its own. A sync makes one sample of them, in
which each row of all shards is as likely as any other, and one training: that with the most steps,
or one that begins anew. From then on its steps are taken together, each process on its part of the
same batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from torchkoopman.fitting.syncing import WAYS_OUT, Syncing
from torchkoopman.fitting.trainer import Trainer
from torchkoopman.koopman.span import Span
from torchkoopman.observe.agreement import agree
from torchkoopman.observe.processes import Processes, moved

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from torchkoopman.fitting.calibration import Calibration
    from torchkoopman.fitting.candidates import Candidate
    from torchkoopman.fitting.design import Design
    from torchkoopman.fitting.dynamics import Dynamics
    from torchkoopman.fitting.intake import Intake

_NO_ORDER = (
    "with a halflife coordinates are renewed where the data drift, in each process by itself, and "
    "rows of several processes have no order to weigh them by. Leave halflife= out, or let one "
    "process stream."
)


class SyncedAutoencoder(Syncing):
    """An autoencoder of which every process streams a shard."""

    batch: int
    dynamics: Dynamics
    tail: nn.Module | None
    _design: Design
    _generator: torch.Generator
    _intake: Intake
    _trainer: Trainer | None
    _owed: float
    """Steps that are due but for their fraction."""
    _outcome: Candidate | None
    """Result of the latest comparison, until more rows come."""
    _notes: tuple[str, ...]
    _way: Literal["step", "span"]
    _processes: Processes | None = None
    """Those that take every step together, since the first sync of several."""

    def holding_back(self) -> Calibration | None:
        """The calibration, until it has ended."""
        return self._intake.holding_back

    def _started(self, dynamics: Literal["step", "span"], tail: nn.Module | None) -> Trainer:
        """A training on the reservoir that has not begun."""
        raise NotImplementedError

    def _judge(self) -> nn.Module | None:
        """The tail as a map of the last layer's coordinates."""
        raise NotImplementedError

    def _options(self) -> dict[str, Any]:
        """What the fitter was made with."""
        raise NotImplementedError

    def _restored(self, state: Mapping[str, Any]) -> Trainer:
        """The training of which this is the state, in the coordinates of now."""
        design, tail = self._design, self._judge() if state["tail"] else None
        settings = design.weights, design.learning_rate, design.decay, tail
        return Trainer.restored(state, *settings)

    def _said(self) -> dict[str, Any]:
        intake = self._intake
        span = None if intake.unseen else Span.of(intake.latest)
        return {
            "refusal": _NO_ORDER if intake.halflife is not None else "",
            "new rows": intake.new_rows,
            "done": 0 if self._trainer is None else self._trainer.done,
            "fitter": type(self).__name__,
            "syncs": self._syncs,
            "options": self._options(),
            "layers": None if span is None else span.layers,
            "readings": None if span is None else span.readings(),
            **intake.measured(),
        }

    def _unite(
        self, processes: Processes, said: Sequence[Mapping[str, Any]], agreed: Mapping[str, Any]
    ) -> None:
        # Steps to come have the group's own limit: a timeout is for the exchanges of this sync.
        self._processes = Processes(processes.group) if processes.size > 1 else None
        if self._syncs[0] and not any(each["new rows"] for each in said):
            return
        done = [each["done"] for each in said]
        source = done.index(max(done))
        draws = torch.Generator(self._generator.device)
        draws.set_state(self._generator.get_state())
        self._generator = draws
        self._intake = self._intake.united(processes, said, agreed, draws, self._syncs[0], source)
        trainer = self._trainer if max(done) else None
        if trainer is None and processes.rank == source:
            trainer = self._started(self._way, self._judge())
        state, drawn = processes.told(
            lambda: (None if trainer is None else trainer.state_dict(), draws.get_state()), source
        )
        self._trainer = self._restored(moved(state, self._intake.latest.device))
        draws.set_state(drawn)
        self._owed, self._outcome, self._notes = 0.0, None, ()

    def _agreed_to_train(self, steps: int) -> None:
        """See that all processes are about to take the same steps on the same rows.

        Raises:
            ValueError: they are not; in all of them.
        """
        if self._processes is None:
            return
        new = f"it has {self._intake.new_rows} rows that the others do not know; sync() first."
        said = {"refusal": new if self._intake.new_rows else "", "syncs": self._syncs}
        agree("train()", self._processes.gather({**said, "steps": steps}), WAYS_OUT)
