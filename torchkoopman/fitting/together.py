"""``tk.fit`` in many processes: one calibration first, then each its shard, then one surrogate."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from torchkoopman.fitting.syncing import Syncing
from torchkoopman.observe.processes import Processes, alone, initialised

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torchkoopman.fitting.baselines import Baselines
    from torchkoopman.fitting.evaluation import Evaluator
    from torchkoopman.observe.processes import Group
    from torchkoopman.observe.watch import Streamed


class Together:
    """The processes that fit one surrogate; a process by itself does nothing here.

    Args:
        group: those with shards of the data; None for all of ``torch.distributed``.

    Raises:
        RuntimeError: torchrun started several processes, and no process group was made.
    """

    def __init__(self, group: Group = None) -> None:
        if not initialised():
            alone(
                "tk.fit()",
                "They would fit surrogates of their own, each of its shard. Call "
                "torch.distributed.init_process_group() first, and give each process its part of "
                "the data, as torch.utils.data.DistributedSampler does.",
            )
        processes = Processes(group) if initialised() else None
        self.processes = processes if processes is not None and processes.size > 1 else None
        self._group = group

    @property
    def leads(self) -> bool:
        """Whether this process is the one that prints."""
        return self.processes is None or self.processes.rank == 0

    @property
    def size(self) -> int:
        """How many there are."""
        return 1 if self.processes is None else self.processes.size

    def streamed(self, batches: Iterable[Any], *fitters: Any) -> Iterator[Any]:
        """The batches; between two of them the fitters choose their coordinates together.

        A process waits for the others when it has its part of the rows for that, or no further
        batch; then none waits for another before the end.

        Raises:
            TypeError: a fitter that cannot be synced.
        """
        if self.processes is None:
            yield from batches
            return
        for fitter in fitters:
            if not isinstance(fitter, Syncing):
                raise TypeError(
                    f"tk.fit() in {self.size} processes needs a fitter that can merge what they "
                    f"stream, and {type(fitter).__name__} has no sync(). Take a DMDFitter, an "
                    "EDMDFitter or an AutoencoderFitter, or fit in one process."
                )
        waiting = [each for fitter in fitters if (each := fitter.holding_back()) is not None]
        for calibration in waiting:
            calibration.waits = True
        chosen = not any(self.processes.gather(bool(waiting)))
        for batch in batches:
            yield batch
            if not chosen and all(each.enough(self.size) for each in waiting):
                self._choose(*fitters)
                chosen = True
        if not chosen:
            self._choose(*fitters)

    def _choose(self, fitter: Syncing, *rivals: Syncing) -> None:
        fitter.sync(self._group)
        for rival in rivals:
            with suppress(ValueError):  # too few rows for it: said at the end, if it is so still
                rival.sync(self._group)

    def sync(self, fitter: Any) -> None:
        """Make one of what all have streamed."""
        if self.processes is not None:
            fitter.sync(self._group)

    def required(self, watched: Streamed, argument: str) -> str | None:
        """What a report should say of the targets, if all of them together have seen a row.

        Raises:
            ValueError: none has.
        """
        try:
            said = "", watched.require(argument).note
        except ValueError as error:
            if self.processes is None:
                raise
            said = str(error), watched.note
        every = [said] if self.processes is None else self.processes.gather(said)
        if all(refusal for refusal, _ in every):
            raise ValueError(every[0][0])
        return next((note for _, note in every if note is not None), None)

    def over(self, shared: Baselines | Evaluator) -> None:
        """Make one of what all have seen beside the fit."""
        if self.processes is not None:
            shared.over(self.processes)
