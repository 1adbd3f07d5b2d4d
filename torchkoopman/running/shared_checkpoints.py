"""Checkpoints of several processes: a file of each, written in rounds, and one that names the fit.

All write a round before any begins the next, and keep the one before. So wherever processes are
killed there is a round of which all have a file: the newest such one is gone on from.
"""

from __future__ import annotations

import secrets
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchkoopman.observe.warned import warn
from torchkoopman.running.checkpoints import Checkpoints

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torchkoopman.observe.processes import Processes


class SharedCheckpoints:
    """The files ``path.process0``, ``path.process1``, …, and ``path``, the record of them all.

    Every method is called in all processes. What one of them raises, all raise.

    Args:
        path: of the record, which says how many processes there are; it may be another path in
            each of them, as on disks that they do not share.
        processes: those that take part.
    """

    def __init__(self, path: str | Path, processes: Processes) -> None:
        self.path = Path(path)
        self._processes = processes
        self._record = Checkpoints(self.path)
        self._own = Checkpoints(self.path.with_name(f"{self.path.name}.process{processes.rank}"))
        self._fit, self._round = "", 0
        """A name drawn for this fit, and the latest round."""

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        """Keep other writers away.

        Raises:
            RuntimeError: there is one.
        """
        own = [self._own, *([self._record] if self._processes.rank == 0 else [])]
        with ExitStack() as stack:

            def lock() -> None:
                for files in own:
                    stack.enter_context(files.only_writer())

            self._processes.each(lock)
            yield

    def write(self, run: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Write the next round; arguments as for :meth:`Checkpoints.write`."""
        number, size = self._round + 1, self._processes.size

        def mine() -> None:
            known = {"fit": self._fit, "round": number}
            if self._processes.rank == 0:  # first, so that there is one wherever there is another
                self._record.write({"processes": size}, known)
            self._own.write(run, {**known, **state})

        self._processes.each(mine)
        self._round = number

    def read(self, run: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The state of this process in the newest round of which all have a file that is whole.

        None where there is no file, or the first round was not written by all.

        Raises:
            ValueError: a file is of another fit or format, or there is no such round.
        """
        found = self._processes.each(lambda: self._found(run))
        rounds = [{(fit, number) for fit, number, _ in known} for known, _ in found]
        damaged = [each for _, wrong in found for each in wrong]
        common = set.intersection(*rounds)
        if not common:
            if damaged or any(number > 1 for known in rounds for _, number in known):
                raise ValueError(_nothing(self.path, rounds, damaged))
            if any(rounds):
                warn(
                    f"some processes have no file of the first checkpoint at {str(self.path)!r}, "
                    "as happens if they are killed while writing it; the fit starts from scratch."
                )
            self._fit = self._processes.told(lambda: secrets.token_hex(8), 0)
            return None
        self._fit, self._round = max(common, key=lambda each: each[1])
        if damaged:
            warn(
                f"{damaged[0]}; the fit goes on from round {self._round} of its checkpoints, of "
                "which every process has a file that is whole."
            )
        known, _ = found[self._processes.rank]
        path = next(path for *name, path in known if tuple(name) == (self._fit, self._round))
        states: list[Mapping[str, Any]] = []
        self._processes.each(lambda: states.append(self._own.taken(Path(path))))
        return states[0]

    def _found(self, run: Mapping[str, Any]) -> tuple[list[tuple[str, int, str]], list[str]]:
        """Fit, round and path of each file of this process, the latest first; and what is wrong."""
        self._record.found({"processes": self._processes.size})
        states, damaged = self._own.found(run)
        known = [(state["fit"], state["round"], str(path)) for path, state in states.items()]
        return known, damaged


def _nothing(path: Path, rounds: list[set[tuple[str, int]]], damaged: list[str]) -> str:
    """Why there is no round of which all have a file."""
    has = [
        f"process {rank} has {[number for _, number in sorted(known)] or 'none'}"
        for rank, known in enumerate(rounds)
    ]
    fits = {fit for known in rounds for fit, _ in known}
    more = [*damaged, *(["they are of different fits"] if len(fits) > 1 else [])]
    return (
        f"of no round of the checkpoints at {str(path)!r} do all processes have a file: "
        f"{', '.join(has)}{''.join(f'; {each}' for each in more)}. Put back the file that is "
        "missing, or remove those of all processes to begin anew."
    )
