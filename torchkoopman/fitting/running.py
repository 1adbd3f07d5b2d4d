"""A run of ``tk.fit`` over its loader: it stops between two batches, and goes on from a file."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import torch

from torchkoopman.fitting.checkpoints import Checkpoints
from torchkoopman.fitting.orders import Passes, described
from torchkoopman.fitting.resuming import Resumable
from torchkoopman.fitting.snapshots import fingerprint
from torchkoopman.observe.classes import Targets
from torchkoopman.observe.selection import select
from torchkoopman.observe.views import View
from torchkoopman.storage.writers import only_writer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import FrameType, TracebackType

    from torchkoopman.fitting.closed_form import Fitter
    from torchkoopman.fitting.holdout import Holdout
    from torchkoopman.observe.watch import Watch


class Run:
    """The batches of a fit, with a checkpoint whenever so many rows have come since the last.

    While it is entered Ctrl-C stops the stream behind the batch that is under way, so that nothing
    is half learnt, and writes a checkpoint; a second Ctrl-C stops at once. The exception says how
    to go on.

    Args:
        passes: over the loader.
        holdout: what is given the stream, and counts its rows.
        described: what must be the same for whoever goes on from a checkpoint.
        path: of the checkpoints; None for none.
        every: rows from one to the next.
        own: whether the fitter is the user's, who has it after an interrupt.
        called: whether the user says how the model is called.
    """

    def __init__(
        self,
        passes: Passes,
        holdout: Holdout,
        described: Mapping[str, Any],
        path: str | Path | None,
        every: int,
        own: bool,
        called: bool,
    ) -> None:
        self.generator = torch.Generator().manual_seed(0)
        """Of the positions of each sample that are taken."""
        self.targets = Targets(wanted=True, called=called)
        """What is known of the batches' targets."""
        self.resumed = ""
        """What to say of a checkpoint that the run goes on from; empty without one."""
        self._passes = passes
        self._holdout = holdout
        self._described = described
        self._files = None if path is None else Checkpoints(path)
        self._every = every
        self._own = own
        self._written: tuple[int, int] | None = None
        """Pass and rows of the latest checkpoint."""
        self._inside = self._stopping = False
        """Whether a batch is under way, and whether it is the last one."""
        self._ahead = False
        """Whether the passes have given out a batch that is not learnt yet."""
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        """Keep other writers away, go on from the latest checkpoint, and listen to Ctrl-C.

        Raises:
            ValueError: the checkpoint is of another fit.
            RuntimeError: another fit writes to the path.
        """
        with ExitStack() as opened:
            if self._files is not None:
                opened.enter_context(only_writer(self._files.path))
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
                if not self._ahead and self._passes.told_between:
                    self._save()
                error.args = (self._way_on(),)

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
        due: dict[str, Any] | None = None
        for batch in self._passes:
            self._ahead = True
            if due is not None and ("loader" not in due or due["epoch"] == self._passes.epoch):
                self._save(due)
            if self._stopping:
                raise KeyboardInterrupt
            due, self._inside = None, True
            yield batch
            self._inside = self._ahead = False
            last = 0 if self._written is None else self._written[1]
            if self._files and (self._stopping or self._holdout.rows - last >= self._every):
                due = self._passes.position()
        self._save()
        if self._stopping:
            raise KeyboardInterrupt

    def _save(self, position: Mapping[str, Any] | None = None) -> None:
        """Write a checkpoint of now, unless the latest one says the same."""
        now = self._passes.epoch, self._holdout.rows
        if self._files is None or self._written == now or not self.done:
            return
        state = {
            "position": position or self._passes.position(),
            "holdout": self._holdout.state_dict(),
            "draws": self.generator.get_state(),
            "note": self.targets.note,
        }
        self._files.write(self._described, state)
        self._written = now

    def _load(self, state: Mapping[str, Any]) -> None:
        self._holdout.load_state_dict(state["holdout"])
        self.generator.set_state(state["draws"])
        self.targets.note = state["note"]
        self._passes.go_to(state["position"])
        self._written = self._passes.epoch, self._holdout.rows

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Stop behind this batch; at once if asked again."""
        if self._stopping or not self._inside:
            raise KeyboardInterrupt
        self._stopping = True

    def _way_on(self) -> str:
        """What was kept of an interrupted run, and how to go on."""
        rows = f"the fit was stopped after {self._holdout.rows} rows"
        if self._files is not None and self._written is not None:
            return (
                f"{rows}. The checkpoint {str(self._files.path)!r} holds what was learnt of "
                f"{self._written[1]} rows; the same call of fit() goes on from there."
            )
        if self._own and not self._inside:
            return (
                f"{rows}. Your fitter keeps what it has learnt of them: look at its surrogate, or "
                "stream the batches that are left to it. The same call of fit() would count these "
                "rows again; with checkpoint=path it goes on instead."
            )
        if self._own:
            return (
                f"{rows}, in the middle of a batch, of which your fitter may have learnt a part: "
                "reset() it. With checkpoint=path the same call of fit() goes on instead."
            )
        return (
            f"{rows}, and what was learnt is lost. With checkpoint=path the same call of fit() "
            "goes on from the latest checkpoint."
        )


def run_of(
    watch: Watch,
    loader: Iterable[Any],
    epochs: int,
    fitter: Fitter,
    holdout: Holdout,
    path: str | Path | None,
    every: int,
    own: bool,
    **settings: Any,
) -> Run:
    """A run over a loader, with checkpoints if there is a path for them.

    Args:
        watch: how the model is run.
        loader: batches.
        epochs: passes over them.
        fitter: what learns.
        holdout: what is given the stream.
        path: of the checkpoints, or None.
        every: rows from one to the next.
        own: whether the fitter is the user's.
        **settings: of the fit, which must be the same for whoever goes on.

    Raises:
        ValueError: with a path: the loader's order cannot be repeated, there are several processes,
            or ``every`` is no positive number.
        TypeError: with a path: a fitter without ``state_dict`` and ``load_state_dict``.
    """
    passes = Passes(loader, epochs, repeatable=path is not None)
    if path is None:
        return Run(passes, holdout, {}, None, every, own, watch.forward is not None)
    if not every > 0:
        raise ValueError(f"every={every} must be a positive number of rows between checkpoints.")
    if settings["processes"] > 1:
        raise ValueError(
            f"checkpoint= is for one process, and these are {settings['processes']}: each would go "
            "on from another moment. Save fitter.state_dict() in each process after a sync()."
        )
    if not (hasattr(fitter, "state_dict") and hasattr(fitter, "load_state_dict")):
        raise TypeError(
            f"checkpoint= needs a fitter with state_dict() and load_state_dict(); "
            f"{type(fitter).__name__} has not both. Write them, or leave checkpoint= out."
        )
    told = {
        "fitter": type(fitter).__name__,
        **(fitter._options() if isinstance(fitter, Resumable) else {}),
        **settings,
        "layers": [each.name for each in select(watch.model, watch.layers)],
        "layout": _told(watch.layout),
        "output": _told(watch.output),
        "positions": watch.positions,
        "forward": _told(watch.forward),
        "held_out": holdout.limit,
        "epochs": epochs,
        **described(loader),
        "model": fingerprint(watch.model),
    }
    return Run(passes, holdout, told, path, every, own, watch.forward is not None)


def _told(option: Any) -> Any:
    """An option in plain types: a function by its name, a view by its description."""
    if isinstance(option, View):
        return option.config()
    if isinstance(option, Mapping):
        return {str(key): _told(value) for key, value in option.items()}
    if callable(option):
        return getattr(option, "__qualname__", type(option).__qualname__)
    return option
