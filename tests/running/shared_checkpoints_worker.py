"""What ``test_shared_checkpoints.py`` runs: fits of forked processes that crash, and go on.

``python shared_checkpoints_worker.py <folder>`` leaves there what each process of each call found.
"""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, TensorDataset

from tests.processes import forked
from tests.running.test_checkpoints import FITS, fit, network, stopping

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    Call = Callable[[int], dict[str, Any]]

EVERY = 100
SHARDS = {"even": [(600, 20), (600, 20)], "uneven": [(600, 20), (340, 50)], "empty": [(600, 20), 0]}
"""Rows and batch size of each process; of one without rows an empty loader."""
RESUMED = [("dmd", "even"), ("edmd", "uneven"), ("edmd", "empty"), ("autoencoder", "uneven")]


def loader(rank: int, shards: str = "even", **options: Any) -> Any:
    """Shuffled batches of a process's own rows."""
    if not (shard := SHARDS[shards][rank % 2]):
        return []
    rows, batch = shard  # type: ignore[misc]
    inputs = torch.randn(rows, 6, generator=torch.Generator().manual_seed(20 + rank))
    generator = torch.Generator().manual_seed(3)
    data = TensorDataset(inputs, torch.arange(rows) % 3)
    return DataLoader(data, batch, **{"shuffle": True, "generator": generator, **options})


def fitted(rank: int, path: Path | None, model: nn.Module, /, **options: Any) -> dict[str, Any]:
    """One call of ``tk.fit``: its surrogate, or what was raised; and what was warned of."""
    given = {"loader": loader(rank), "method": "dmd", **options}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = fit(model, given.pop("loader"), path, **given)
        except (Exception, KeyboardInterrupt) as error:
            found = {"error": f"{type(error).__name__}: {error}"}  # type: ignore[dict-item]
    said = [str(each.message) for each in caught if "docker" not in str(each.message)]
    return {**found, "warnings": said}


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


class Calls:
    """Groups of processes, one after the other; each leaves its results in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def __call__(self, name: str, call: Call, size: int = 2) -> list[int]:
        """Exit statuses of the processes."""
        self.count += 1
        store = self.folder / f"store{self.count}"

        def work(rank: int) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if size > 1:
                limit = datetime.timedelta(seconds=30)
                dist.init_process_group("gloo", f"file://{store}", limit, size, rank)
            torch.save(call(rank), self.folder / f"{name}.{rank}.pt")

        return forked(size, work)


def dying_at(replacement: int) -> None:
    """Let this process die instead of giving a file its name for so many-th time."""
    replace, count = os.replace, [0]

    def counted(source: Any, target: Any) -> None:
        count[0] += 1
        if count[0] == replacement:
            kill()
        replace(source, target)

    os.replace = counted


def crashing(rank: int, path: Path, plan: dict[int, int], /, **options: Any) -> dict[str, Any]:
    """A fit in which process ``rank`` of the plan is killed in so many-th forward pass."""
    model = network()
    if rank in plan:
        stopping(model, plan[rank], kill)
    return fitted(rank, path, model, **options)


def resumed(calls: Calls, kind: str, shards: str) -> None:
    """One process killed, then both, then neither."""
    path, name = calls.folder / f"ckpt {kind} {shards}", f"{kind} {shards}"

    def options(rank: int) -> dict[str, Any]:
        return {"method": "autoencoder", **FITS[kind], "loader": loader(rank, shards)}

    calls(f"{name} whole", lambda rank: fitted(rank, None, network(), **options(rank)))
    for plan in ({0: 13}, {0: 9, 1: 4}, {}):
        calls(name, lambda rank, plan=plan: crashing(rank, path, plan, **options(rank)))


WRITING = [(0, 1), (0, 2), (0, 3), (0, 6), (0, 9), (1, 1), (1, 2), (1, 3)]
"""Process, and the how many-th name it gives to a file: the record's, its own, those before."""


def killed_while_writing(calls: Calls) -> None:
    """A process dies just before a file of a checkpoint gets its name."""
    calls("whole", lambda rank: fitted(rank, None, network()))
    for dying, number in WRITING:
        name, path = f"writing {dying} {number}", calls.folder / f"ckpt writing {dying} {number}"

        def first(
            rank: int, dying: int = dying, number: int = number, path: Path = path
        ) -> dict[str, Any]:
            if rank == dying:
                dying_at(number)
            return fitted(rank, path, network())

        calls(f"{name} killed", first)
        calls(name, lambda rank, path=path: fitted(rank, path, network()))


def begun(calls: Calls, name: str, size: int = 2) -> Path:
    """Checkpoints of a fit that was killed after 340 rows of each process: three rounds."""
    path = calls.folder / name
    calls(f"{name} begun", lambda rank: crashing(rank, path, {0: 18}), size)
    return path


def other_fits(calls: Calls) -> None:
    """Calls that are not the one that was killed."""
    changes: dict[str, Callable[[int], dict[str, Any]]] = {
        "options": lambda rank: {"rank": 3},
        "options of one": lambda rank: {"rank": 3} if rank else {},
        "every": lambda rank: {"every": 0},
        "loader of one": lambda rank: {"loader": loader(rank, generator=None)} if rank else {},
        "data of one": lambda rank: {"loader": loader(rank + 2 * rank)},
    }
    path = begun(calls, "other")
    for name, change in changes.items():
        calls(name, lambda rank, change=change: fitted(rank, path, network(), **change(rank)))
    calls("model", lambda rank: fitted(rank, path, network(5)))
    calls("one process", lambda rank: fitted(rank, path, network()), 1)
    calls("three processes", lambda rank: fitted(rank, path, network()), 3)
    calls("without", lambda rank: fitted(rank, None if rank else path, network()))
    single = begun(calls, "single", 1)
    calls("two for one", lambda rank: fitted(rank, single, network()))


def files(calls: Calls) -> None:
    """Files that are gone, damaged, or of another fit of the same arguments."""
    first, second = begun(calls, "first"), begun(calls, "second")

    def place(path: Path, rank: int, previous: bool = False) -> Path:
        return path.with_name(f"{path.name}.process{rank}{'.previous' if previous else ''}")

    def foreign(path: Path) -> None:
        for previous in (False, True):
            shutil.copy(place(second, 1, previous), place(path, 1, previous))

    def folder(path: Path) -> None:
        place(path, 1).unlink()
        place(path, 1).mkdir()

    damages: dict[str, Callable[[Path], object]] = {
        "gone": lambda path: [place(path, 1, each).unlink() for each in (False, True)],
        "latest gone": lambda path: place(path, 1).unlink(),
        "damaged": lambda path: place(path, 1).write_bytes(b"no checkpoint" * 99),
        "both damaged": lambda path: [
            place(path, 0, each).write_bytes(b"") for each in (False, True)
        ],
        "folder": folder,
        "foreign": foreign,
    }
    for name, damage in damages.items():
        path = calls.folder / name / first.name
        path.parent.mkdir()
        for each in calls.folder.glob(f"{first.name}*"):
            if each.is_file() and each.suffix not in (".pt", ".lock"):
                shutil.copy(each, path.parent)
        damage(path)
        calls(f"files {name}", lambda rank, path=path: fitted(rank, path, network()))


def two_writers(calls: Calls) -> None:
    """A second fit, of one process, and then of the same two, while the first one runs."""
    path = calls.folder / "busy"

    def call(rank: int) -> dict[str, Any]:
        other: list[Any] = []
        alone = dist.new_group([rank], use_local_synchronization=True)

        def second() -> None:
            if rank == 0:
                other.append(fitted(rank, path, network(), group=alone)["error"])

        found = fitted(rank, path, stopping(network(), 7, second))
        return {**found, "second": other}

    calls("busy", call)


def interrupted(calls: Calls) -> None:
    """Ctrl-C in both processes, in one alone, and twice."""
    for name, told in {"both": (0, 1), "one": (1,)}.items():
        path = calls.folder / f"ckpt {name}"

        def call(rank: int, told: Sequence[int] = told, path: Path = path) -> dict[str, Any]:
            model = network()
            if rank in told:
                stopping(model, 7 + rank, interrupt)
            return fitted(rank, path, model)

        calls(f"interrupted {name}", call)
        calls(f"interrupted {name} resumed", lambda rank, path=path: fitted(rank, path, network()))


def alike(calls: Calls) -> None:
    """The same rows in both processes; and a fit that had ended, called again."""
    calls("alike", lambda rank: fitted(rank, None, network(), loader=loader(0)))
    path = calls.folder / "ended"
    calls("ended first", lambda rank: fitted(rank, path, network()))
    calls("ended", lambda rank: fitted(rank, path, stopping(network(), 1, kill)))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    fit(network(), loader(0), None, **FITS["dmd"])  # what is loaded late is loaded before the forks
    calls = Calls(folder)
    for kind, shards in RESUMED:
        resumed(calls, kind, shards)
    for case in (killed_while_writing, other_fits, files, two_writers, interrupted, alike):
        case(calls)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
