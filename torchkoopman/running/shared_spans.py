"""``rank_spans`` in many processes: each streams its shard, and their statistics become one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils._pytree import tree_leaves

from torchkoopman.observe.agreement import agree
from torchkoopman.observe.processes import digest, moved
from torchkoopman.observe.totals import total_of
from torchkoopman.running.batch_digests import digest_of
from torchkoopman.running.meetings import warn_of_same

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.observe.costs import NetworkCosts
    from torchkoopman.observe.processes import Processes
    from torchkoopman.observe.trajectory import Trajectory
    from torchkoopman.observe.watch import Watch
    from torchkoopman.running.span_statistics import SpanStatistics

_WAYS_OUT = {
    "options": "Give the same observables= and ridge= in every process.",
    "layers": "Give the same layers= in every process.",
    "statistics": (
        "statistics= of an earlier ranking hold rows of their own, which count once: give the same "
        "in every process, as that ranking returned them, or merge() them before."
    ),
}


class _First:
    """Keeps the first trajectory."""

    def __init__(self, contextual: bool) -> None:
        self.contextual = contextual
        self.trajectory: Trajectory | None = None

    def update(self, trajectory: Trajectory) -> None:
        """Take one, if it is the first."""
        self.trajectory = self.trajectory or trajectory


class SharedSpans:
    """The statistics of all processes, and those of the rows of this one alone, ``own``.

    Scales and random features are those of the first process that has a batch.

    Args:
        halves: what is streamed into; of an earlier ranking the same in all processes.
        processes: those that take part; None for a process by itself.
        watch: how the model is run.
        first: the first batch of this process, or none.

    Raises:
        ValueError: processes differ in layers, observables, ridge or earlier statistics; in all.
    """

    def __init__(
        self,
        halves: SpanStatistics,
        processes: Processes | None,
        watch: Watch,
        first: Sequence[Any],
    ) -> None:
        self._halves, self._processes = halves, processes
        self.own = halves
        """What this process streams to."""
        if processes is None:
            return
        listener = _First(halves.contextual)
        if first:
            watch.stream(first, listener)
        sample = listener.trajectory
        said = processes.gather(
            {
                "refusal": "",
                "options": halves._options(),
                "layers": None if sample is None else sample.layers,
                "statistics": digest(*tree_leaves(halves._state())) if halves.layers else "none",
                "first": digest_of(first[0]) if first else "",
            }
        )
        agree("rank_spans()", said, _WAYS_OUT)
        warn_of_same([each["first"] for each in said])
        leads = next((rank for rank, each in enumerate(said) if each["layers"] is not None), None)
        if leads is None:
            return
        if not halves.layers:
            opened = processes.told(lambda: _opened(halves, sample), leads)
            halves.load_state_dict(opened if sample is None else moved(opened, sample.device))
        self.own = halves._emptied()

    def joined(self, costs: NetworkCosts | None) -> NetworkCosts | None:
        """Take the rows of all processes into the statistics; the costs are those of the first.

        Args:
            costs: as this process found them, if it had a batch.
        """
        processes, own, halves = self._processes, self.own, self._halves
        if processes is None:
            return costs
        rows = next((half for half in own.moments if half.count), None)
        widths = None if rows is None else {name: rows.features(name) for name in rows.names}
        said = processes.gather((own.batches if own is not halves else 0, widths, costs))
        known = next((widths for _, widths, _ in said if widths is not None), None)
        if known is not None:
            before = halves.batches + sum(batches for batches, *_ in said[: processes.rank])
            device = rows.mean(rows.names[0]).device if rows is not None else processes.device
            for number, half in enumerate(halves.moments):
                mine = own.moments[(number + before) % 2]
                half.merge(total_of(mine, known, processes, device))
        halves.batches += sum(batches for batches, *_ in said)
        return next((costs for *_, costs in said if costs is not None), None)


def _opened(halves: SpanStatistics, sample: Trajectory | None) -> dict[str, Any]:
    """The state of statistics whose scales and random features are fixed."""
    assert sample is not None
    return halves.calibrate(sample).state_dict()
