"""A run of ``tk.fit`` over its loader: it stops between two batches, and goes on from a file."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import torch

from torchkoopman.observe.classes import Targets
from torchkoopman.running.batch_digests import digest_of
from torchkoopman.running.interrupted import way_on

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType, TracebackType

    from torchkoopman.observe.watch import Watch
    from torchkoopman.running.checkpoints import Checkpoints
    from torchkoopman.running.holdout import Holdout
    from torchkoopman.running.meetings import Meetings, Wish
    from torchkoopman.running.orders import Passes
    from torchkoopman.running.shared_checkpoints import SharedCheckpoints


class Run:
    """The batches of a fit, with a checkpoint whenever so many rows have come since the last.

    While it is entered Ctrl-C stops the stream behind the batch that is under way, so that nothing
    is half learnt, and writes a checkpoint; a second Ctrl-C stops at once. The exception says how
    to go on.

    Args:
        passes: over the loader.
        holdout: what is given the stream, and counts its rows.
        described: what must be the same for whoever goes on from a checkpoint.
        files: of the checkpoints; None for none.
        every: rows from one to the next.
        own: whether the fitter is the user's, who has it after an interrupt.
        called: whether the user says how the model is called.
        meetings: of the processes that stream.
    """

    def __init__(
        self,
        passes: Passes,
        holdout: Holdout,
        described: Mapping[str, Any],
        files: Checkpoints | SharedCheckpoints | None,
        every: int,
        own: bool,
        called: bool,
        meetings: Meetings,
    ) -> None:
        self.generator = torch.Generator().manual_seed(0)
        """Draws the positions of each sample that are taken."""
        self.targets = Targets(wanted=True, called=called)
        """What is known of the batches' targets."""
        self.resumed = ""
        """What to say of a checkpoint that the run goes on from; empty without one."""
        self._passes = passes
        self._holdout = holdout
        self._described = described
        self._files = files
        self._every = every
        self._own = own
        self._meetings = meetings
        self._written: tuple[int, int] | None = None
        """Pass and rows of the latest checkpoint."""
        self._inside = self._stopping = False
        """Whether a batch is under way, and whether it is the last one."""
        self._ahead = False
        """Whether the passes have given out a batch that is not learnt yet."""
        self._begun = self._ended = False
        """Whether the processes have met before the first batch, and after the last."""
        self._position: dict[str, Any] | None = None
        """The state after the latest batch that was learnt, where it may be asked for."""
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        """Keep other writers away, go on from the latest checkpoint, and listen to Ctrl-C.

        Raises:
            ValueError: the checkpoint is of another fit.
            RuntimeError: another fit writes to the path.
        """
        with ExitStack() as opened:
            if self._files is not None:
                opened.enter_context(self._files.only_writer())
                if (state := self._files.read(self._described)) is not None:
                    self._load(state)
                    where = f"{str(self._files.path)!r}, behind {self._holdout.rows} rows"
                    self.resumed = f"going on from {where}"
            if threading.current_thread() is threading.main_thread():
                before = signal.getsignal(signal.SIGINT)
                if before is signal.default_int_handler:
                    signal.signal(signal.SIGINT, self._stop)
                    opened.callback(signal.signal, signal.SIGINT, before)
            self._closing = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._closing:
            if isinstance(error, KeyboardInterrupt):
                if not (self._ahead or self._meetings.several) and self._passes.told_between:
                    self._save()
                files, written = self._files, self._written
                said = way_on(
                    self._holdout.rows,
                    self._meetings.several,
                    None if files is None else files.path,
                    None if written is None else written[1],
                    self._own,
                    self._inside,
                )
                error.args = (said,)

    def watching(self, watch: Watch) -> Watch:
        """The watch with what the run knows of its stream."""
        return replace(watch, generator=self.generator, targets=self.targets)

    @property
    def done(self) -> int:
        """Batches that were streamed."""
        return self._passes.done

    def batches(self) -> Iterator[Any]:
        """What is left of the passes.

        A checkpoint that is due is written when there is another batch: some loaders with a state
        take the end of a pass for the beginning of the next.
        """
        for batch in self._passes:
            self._ahead = True
            self._begin(batch)
            self._between(batch)
            self._inside = True
            yield batch
            self._inside = self._ahead = False
            if self._wish is not None and self._files is not None:
                self._position = self._passes.position()
        self._begin(None)
        self._position = None
        if self._meetings.several:
            self._meet("end")
        else:
            self._save()
        self._ended = True
        if self._stopping:
            raise KeyboardInterrupt

    def _begin(self, batch: Any) -> None:
        """Meet the other processes, once: with the first batch, or None where there is none."""
        if not self._begun and self._meetings.several:
            self._meetings.begin("" if batch is None else digest_of(batch))
        self._begun = True

    def _between(self, batch: Any) -> None:
        """Do what is wished between the batch that was learnt and this one.

        Raises:
            KeyboardInterrupt: the fit was asked to stop.
        """
        if self._position is not None:
            self._position["next"] = digest_of(batch)
        told = self._passes.told_ahead and (self._files is None or self._position is not None)
        while (wish := self._wish) is not None and (told or not self._meetings.several):
            if self._meetings.several and (self._files is not None or wish == "calibration"):
                self._meet(wish)
                continue
            if told:
                self._save()
            if wish == "checkpoint":
                break
            raise KeyboardInterrupt
        self._position = None

    @property
    def _wish(self) -> Wish | None:
        """What is to be done before the next batch."""
        if self._stopping:
            return "stop"
        if self._meetings.calibrates:
            return "calibration"
        last = 0 if self._written is None else self._written[1]
        due = self._files is not None and self._holdout.rows - last >= self._every
        return "checkpoint" if due else None

    def _meet(self, wish: Wish) -> None:
        """Wait for the other processes."""
        if self._files is None:
            self._meetings.meet(lambda: wish, None, self._news)
        else:
            self._meetings.meet(lambda: "stop" if self._stopping else wish, self._save, self._news)

    def _news(self) -> bool:
        """Whether anything came since the latest checkpoint."""
        return self._written != (self._passes.epoch, self._holdout.rows)

    def _save(self) -> None:
        """Write a checkpoint of now; a process by itself not one that says the same again."""
        alone = not self._meetings.several
        if self._files is None or (alone and not (self._news() and self.done)):
            return
        state = {
            "position": self._position or self._passes.position(),
            "holdout": self._holdout.state_dict(),
            "draws": self.generator.get_state(),
            "note": self.targets.note,
            "chosen": self._meetings.chosen,
        }
        self._files.write(self._described, state)
        self._written = self._passes.epoch, self._holdout.rows

    def _load(self, state: Mapping[str, Any]) -> None:
        self._holdout.load_state_dict(state["holdout"])
        self.generator.set_state(state["draws"])
        self.targets.note = state["note"]
        self._passes.go_to(state["position"])
        self._position = dict(state["position"])
        self._meetings.chosen = state["chosen"]
        self._written = self._passes.epoch, self._holdout.rows

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Stop behind this batch, with all other processes; at once if asked again."""
        together = self._files is not None and self._meetings.several and not self._ended
        if self._stopping or not (self._inside or together):
            raise KeyboardInterrupt
        self._stopping = True
