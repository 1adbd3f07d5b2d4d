"""The processes that stream shards of one data set and end with one result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchkoopman.observe.launched import alone, initialised
from torchkoopman.observe.processes import Processes

if TYPE_CHECKING:
    from torchkoopman.observe.processes import Group
    from torchkoopman.observe.watch import Streamed
    from torchkoopman.running.baselines import Baselines
    from torchkoopman.running.evaluation import Evaluator


class Together:
    """The processes of one call; a process by itself does nothing here.

    Args:
        group: those with shards of the data; None for all of ``torch.distributed``.
        caller: as the user calls it.

    Raises:
        RuntimeError: torchrun started several processes, and no process group was made.
    """

    def __init__(self, group: Group = None, caller: str = "tk.fit()") -> None:
        if not initialised():
            alone(
                caller,
                "Each would end with what its shard alone says. Call "
                "torch.distributed.init_process_group() first, and give each process its part of "
                "the data, as torch.utils.data.DistributedSampler does.",
            )
        processes = Processes(group) if initialised() else None
        self.processes = processes if processes is not None and processes.size > 1 else None
        self.group = group

    @property
    def leads(self) -> bool:
        """Whether this process is the one that prints."""
        return self.processes is None or self.processes.rank == 0

    @property
    def size(self) -> int:
        """How many there are."""
        return 1 if self.processes is None else self.processes.size

    def sync(self, fitter: Any) -> None:
        """Make one of what all have streamed."""
        if self.processes is not None:
            fitter.sync(self.group)

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

    def noted(self, note: str | None) -> str | None:
        """What a report should say of the targets, of which each process has seen its part."""
        every = [note] if self.processes is None else self.processes.gather(note)
        return next((each for each in every if each is not None), None)

    def over(self, shared: Baselines | Evaluator) -> None:
        """Make one of what all have seen beside the fit."""
        if self.processes is not None:
            shared.over(self.processes)
