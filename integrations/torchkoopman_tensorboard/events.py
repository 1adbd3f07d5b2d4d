"""A folder of event files that shows one training, also one that was resumed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self
from weakref import WeakValueDictionary

from tensorboard.compat import tf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from torchkoopman_tensorboard.summary import log

if TYPE_CHECKING:
    from torchkoopman import Surrogate
    from torchkoopman.flows import FlowLook
    from torchkoopman.results import ModeTracks


class EventFolder:
    """Event files in a folder of their own; give it to a monitor of a training as its log.

    When a training is resumed after a step, the points that an earlier run has written of later
    steps are hidden in TensorBoard, so that none is shown twice. A training that begins anew hides
    all earlier ones. Every spectrum is on the disk before the training goes on.

    Example:
        >>> from torchkoopman_tensorboard import EventFolder
        >>> monitor = tk.TrainingMonitor(
        ...     layers, log=EventFolder("runs/koopman"), sample_every=1, log_every=10
        ... )
        >>> with monitor.attach(model.train()):
        ...     for _ in range(20):
        ...         loss = model(train.inputs[:500]).mean()  # then loss.backward()
        ...         monitor.step()  # after optimizer.step()
        >>> from pathlib import Path
        >>> len(list(Path("runs/koopman").glob("events.*")))  # tensorboard --logdir runs
        1

    Args:
        folder: of the event files, for TensorBoard's ``--logdir``; it is made by :meth:`open`.
        tag: name of the span; by default ``<first layer>-<last layer>``.
        pseudospectrum_every: spectra from one with a pseudospectrum to the next, counted from the
            beginning of the training; 0 for none, since each takes seconds.

    Raises:
        ValueError: a negative ``pseudospectrum_every``.
    """

    _in_use: ClassVar[WeakValueDictionary[Path, EventFolder]] = WeakValueDictionary()

    def __init__(self, folder: str | Path, tag: str = "", *, pseudospectrum_every: int = 0) -> None:
        if pseudospectrum_every < 0:
            raise ValueError(
                f"EventFolder got pseudospectrum_every={pseudospectrum_every}; give 1 or more, or "
                "0 for no pseudospectra."
            )
        self.folder = Path(folder)
        self.tag = tag
        self.pseudospectrum_every = pseudospectrum_every
        self._spectra = 0
        self._writer: Any = None
        self._place = self.folder
        """The folder, whatever the working directory is, while it is open."""

    def open(self, step: int) -> Self:
        """Begin an event file.

        Args:
            step: optimiser steps that the training has done.

        Raises:
            OSError: nothing can be written there.
            RuntimeError: another event folder of this process writes there.
        """
        self.close()
        place = self._place = self.folder.resolve()
        if place in self._in_use:
            raise RuntimeError(
                f"another training, or another callback of this one, writes to {str(place)!r}, and "
                "two would hide each other's points. Give each a folder of its own; if a training "
                "broke off, close() its monitor."
            )
        _wait_for_a_later_name(self.folder)
        try:
            self._writer = EventFileWriter(str(place))
        except (OSError, tf.errors.OpError) as error:  # the second where TensorFlow is installed
            raise OSError(
                f"the event files cannot be written into {str(place)!r}: {error}. Give a folder "
                "that is, or can be, made and written to."
            ) from error
        self._in_use[place] = self
        start = SessionLog(status=SessionLog.START)
        first = step + 1 if step else 0
        self._writer.add_event(Event(wall_time=time.time(), step=first, session_log=start))
        self._writer.flush()
        return self

    def close(self) -> None:
        """End the event file; a second time does nothing."""
        writer, self._writer = self._writer, None
        if writer is not None:
            self._in_use.pop(self._place, None)
            writer.close()

    def __call__(
        self, result: Surrogate | FlowLook, step: int, tracks: ModeTracks | None = None
    ) -> None:
        """Write what :func:`log` says of a surrogate, or of a look at a flow."""
        due = self._pseudospectrum_is_due(tracks) if hasattr(result, "spectrum") else False
        log(self, result, step, self.tag, tracks=tracks, pseudospectrum=due)
        self._writer.flush()

    def _pseudospectrum_is_due(self, tracks: ModeTracks | None) -> bool:
        # The tracks of a training that was resumed have the spectra from before.
        self._spectra = self._spectra + 1 if tracks is None else len(tracks.steps)
        every = self.pseudospectrum_every
        return every > 0 and self._spectra % every == 0

    def add_summary(self, summary: Any, step: int) -> None:
        """Write a summary.

        Raises:
            RuntimeError: the folder is not open.
        """
        if self._writer is None:
            raise RuntimeError(f"{str(self.folder)!r} is not open for events: call open(step).")
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def _get_file_writer(self) -> Self:
        """What ``SummaryWriter`` has under this name."""
        return self


def _wait_for_a_later_name(folder: Path) -> None:
    """Files are read in the order of their names, which tell the second in which each began."""
    seconds = (file.name.split(".")[3] for file in folder.glob("events.out.tfevents.*"))
    latest = max((int(second) for second in seconds if second.isdecimal()), default=0)
    if (left := latest + 1 - time.time()) > 0:
        time.sleep(min(left, 1.0))
