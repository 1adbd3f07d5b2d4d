"""Where the processes of a fit wait for each other while each streams its shard.

A process comes between two batches when it wishes something, and goes on when that is granted. All
meet in the same exchanges, whatever each of them came for, so none waits for one that is elsewhere.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from torchkoopman.fitting.syncing import Syncing
from torchkoopman.observe.processes import Processes
from torchkoopman.observe.warned import warn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torchkoopman.fitting.calibration import Calibration
    from torchkoopman.observe.processes import Group

    Wish = Literal["calibration", "checkpoint", "stop", "end"]


class Meetings:
    """The meetings of one stream; a process by itself has none.

    * ``"calibration"``: its part of the rows for that is there. The fitters choose their
      coordinates together as soon as every process wishes it or is at its end.
    * ``"checkpoint"``: one is due, so all write one, each behind its own latest batch.
    * ``"stop"``: the same, after which all are interrupted.
    * ``"end"``: there are no further batches.

    Args:
        group: as for ``tk.fit``.
        size: how many processes there are.
        fitters: that choose coordinates together; those behind the first may have too few rows.

    Raises:
        TypeError: one of many processes with a fitter that cannot be synced.
    """

    def __init__(self, group: Group, size: int, *fitters: Any) -> None:
        self.chosen = size == 1
        """Whether no fitter is to choose coordinates any more."""
        self._group, self._fitters = group, fitters
        self._waiting: list[Calibration] = []
        # Without end, but looked at again and again, so that Ctrl-C comes through.
        self._processes = Processes(group, math.inf) if size > 1 else None
        for fitter in fitters if size > 1 else ():
            if not isinstance(fitter, Syncing):
                raise TypeError(
                    f"tk.fit() in {size} processes needs a fitter that can merge what they stream, "
                    f"and {type(fitter).__name__} has no sync(). Take a DMDFitter, an EDMDFitter "
                    "or an AutoencoderFitter, or fit in one process."
                )

    @property
    def several(self) -> bool:
        """Whether there is anybody to meet."""
        return self._processes is not None

    def begin(self, first: str) -> None:
        """Meet before the first batch.

        Args:
            first: a digest of it; empty without one.
        """
        if self._processes is None:
            return
        self._waiting = [each for fitter in self._fitters if (each := fitter.holding_back())]
        for calibration in self._waiting:
            calibration.waits = True
        said = self._processes.gather((bool(self._waiting) and not self.chosen, first))
        self.chosen = not any(waits for waits, _ in said)
        warn_of_same([digest for _, digest in said])

    @property
    def calibrates(self) -> bool:
        """Whether this process has its part of the rows for coordinates that are to be chosen."""
        if self._processes is None or self.chosen:
            return False
        return all(each.enough(self._processes.size) for each in self._waiting)

    def meet(
        self,
        wish: Callable[[], Wish],
        save: Callable[[], None] | None,
        news: Callable[[], bool],
    ) -> None:
        """Wait until a wish is granted.

        Args:
            wish: see above; asked anew before each exchange.
            save: writes a checkpoint; None where there are none.
            news: whether anything came since the latest checkpoint.

        Raises:
            KeyboardInterrupt: a process wished to stop.
        """
        if self._processes is None or (self.chosen and save is None):
            return
        while True:
            mine = wish()
            said = self._processes.gather((mine, news()))
            wishes = {each for each, _ in said}
            if save is not None and wishes & {"stop", "checkpoint"}:
                save()
                if "stop" in wishes:
                    raise KeyboardInterrupt
                if mine == "checkpoint":
                    return
            elif not self.chosen:  # all wish it or are at their end
                self._choose(*self._fitters)
                self.chosen = True
                if mine == "calibration" or save is None:
                    return
            else:  # the end of all
                if save is not None and any(new for _, new in said):
                    save()
                return

    def _choose(self, fitter: Syncing, *rivals: Syncing) -> None:
        fitter.sync(self._group)
        for rival in rivals:
            with suppress(ValueError):  # too few rows for it: said at the end, if it is so still
                rival.sync(self._group)


def warn_of_same(first: Sequence[str]) -> None:
    """Say that processes seem to stream the same rows.

    Args:
        first: a digest of each one's first batch; empty without one.
    """
    if alike := next((each for each in first if each and first.count(each) > 1), None):
        same = [rank for rank, digest in enumerate(first) if digest == alike]
        warn(
            f"the loaders of processes {same} begin with the same batch. If the rest is the same "
            "too, every row counts several times, and rows that one process holds out are learnt "
            "in another. Give every process a shard of its own, as DistributedSampler does, or "
            "group=, the group of the processes that have one."
        )
