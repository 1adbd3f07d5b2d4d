"""``fitter.sync()``: the processes of ``torch.distributed`` make one of what each has streamed.

A fitter keeps apart what all processes had streamed at the latest sync, which is the same in each,
and what this process has streamed since. A sync adds up the latter alone, so a row counts once
however often it is called. Everything is made anew on a copy of the fitter, whose state the fitter
takes over by one assignment at the end: a process whose sync breaks off is as it was before.

No protocol makes all processes take that last step or none. So syncs are numbered, and processes
of which some have taken it and some have not are refused at the next one.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

import torch

from torchkoopman.fitting.replay import Reservoir
from torchkoopman.observe.agreement import agree
from torchkoopman.observe.launched import initialised
from torchkoopman.observe.processes import Processes, digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchkoopman.fitting.calibration import Calibration
    from torchkoopman.observe.processes import Group

WAYS_OUT = {
    "fitter": "Make the same fitter in every process.",
    "syncs": (
        "A sync that ended in some processes and broke off in others, or a fitter that was reset, "
        "made anew or loaded in some: rows would count twice or not at all. Load the same "
        "checkpoint in every process, or reset() all of them."
    ),
    "options": "Make the fitter with the same arguments in every process.",
    "layers": "Attach to the same layers in every process.",
    "readings": "Attach with the same output= and layout= in every process.",
    "dtype": "Run the model in one precision in every process.",
    "widths": (
        "A layer that is split over processes (tensor parallel) is no state by itself: follow "
        "layers whose output is whole. Sync over the data-parallel processes alone, group=."
    ),
    "calibration": (
        "Moments of different observables cannot be merged: call calibrate(trajectory) with the "
        "same trajectory in every process before streaming, or sync() before any process has "
        "calibrated itself on its own rows."
    ),
    "steps": "Call train() with the same number of steps in every process.",
}
"""Subject of a disagreement → what to do."""


class Syncing:
    """A fitter of which every process streams a shard."""

    _syncs: tuple[int, str] = (0, "")
    """How many there were, and a digest of their course: equal only where all of them were."""

    def sync(self, group: Group = None, timeout: float | None = None) -> Self:
        """Merge what all processes of ``torch.distributed`` have streamed, so that each has all.

        Call it in every process, any number of times, outside forward passes: each row counts once.
        Shards may be uneven or empty. Fitters that have not chosen their coordinates yet choose
        them together. Afterwards all processes have the same surrogate, without the R² of a latest
        batch. Without a process group nothing happens.

        Args:
            group: the processes that hold different rows: a process group, a ``DeviceMesh`` of one
                dimension such as ``mesh["dp"]``, or None for all.
            timeout: seconds after which to give up; None for the limits of the process group.

        Raises:
            ValueError: fitters differ in options, layers, widths, dtype, calibration or the number
                of their syncs, or have a halflife; raised in all processes, in the same words.
            RuntimeError: a process died or did not come. The fitter is as before.
        """
        if not initialised():
            return self
        processes = Processes(group, timeout)
        fresh = copy.copy(self)
        try:
            said = processes.gather(fresh._said())
            agreed = agree("sync()", said, WAYS_OUT)
            fresh._unite(processes, said, agreed)
            number, course = self._syncs
            rows = [each["new rows"] for each in said]
            fresh._syncs = number + 1, digest(course, number, rows)
            processes.gather(None)  # all have all: few can be parted from here on
        except (RuntimeError, TimeoutError) as error:
            raise RuntimeError(_broken(self._syncs[0] + 1, processes)) from error
        vars(self).update(vars(fresh))
        return self

    def holding_back(self) -> Calibration | None:
        """What holds rows back until coordinates are chosen; None if nothing does."""
        return None

    def _said(self) -> dict[str, Any]:
        """What processes must agree in, None where unknown.

        Besides, under ``"new rows"`` how many came since the latest sync, and under ``"refusal"``
        why this fitter cannot sync.
        """
        raise NotImplementedError

    def _unite(
        self, processes: Processes, said: Sequence[Mapping[str, Any]], agreed: Mapping[str, Any]
    ) -> None:
        """Become what all processes hold together, without touching what the original holds."""
        raise NotImplementedError


def joined(samples: Sequence[Reservoir], seed: int) -> Reservoir:
    """A reservoir of the rows of several streams; those of the first keep their places."""
    known = [each for each in samples if len(each)]
    if len(known) < 2:
        return known[0] if known else samples[0]
    total = Reservoir(known[0].max_bytes, torch.Generator(), known[0].halflife)
    total.load_state_dict(known[0].state_dict())
    total.generator.manual_seed(seed)
    for other in known[1:]:
        total.merge(other)
    return total


def joined_of_all(
    shared: Reservoir | None,
    own: Reservoir,
    processes: Processes,
    device: torch.device,
    seed: int,
    first: int = 0,
) -> Reservoir:
    """A reservoir of the rows of all processes: those of the latest sync, and those since.

    Args:
        shared: sample of the former, the same in every process.
        own: sample of this process's rows since.
        processes: those that take part; their samples travel one after the other.
        device: where the result shall be.
        seed: of the draws; another one for each sync.
        first: the process whose paths stay in their places if nothing is shared yet.
    """
    mine = own.parts()
    said = processes.gather((own.seen, [(tuple(each.shape), each.dtype) for each in mine]))
    parts = [] if shared is None else [shared]
    for rank in sorted(range(processes.size), key=lambda rank: rank != first):
        seen, kinds = said[rank]
        if not kinds:
            continue
        blank = [torch.empty(shape, dtype=dtype, device=device) for shape, dtype in kinds]
        sent = mine if rank == processes.rank else blank
        part = Reservoir(own.max_bytes, torch.Generator(), own.halflife)
        sample = [processes.from_one(tensor, rank) for tensor in sent]
        part.load_state_dict({**part.state_dict(), "seen": seen, "sample": sample})
        parts = [joined([*parts, part], seed + rank)]
    return parts[0] if parts else own


def _broken(number: int, processes: Processes) -> str:
    return (
        f"sync number {number} broke off in process {processes.rank} of {processes.size}: another "
        "one died or did not come in time. This fitter holds what it held before. Start the "
        "processes again from a checkpoint of the same sync, or make a new process group of those "
        "that are left; processes whose sync ended will be refused beside those whose sync did not."
    )
