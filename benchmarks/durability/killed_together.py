"""Fits of several processes under ``torchrun``, killed and called again: see ``killed.py``."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from benchmarks.durability.fits import fitted, same
from benchmarks.torchrun import started

if TYPE_CHECKING:
    import random
    import subprocess


def begun(checkpoint: Path, rank: int) -> Path:
    """Where a process says that its fit begins, by its number in the system."""
    return checkpoint.with_name(f"{checkpoint.name}.begun{rank}")


def began(checkpoint: Path, processes: int) -> list[int]:
    """The processes' numbers, once all of their fits have begun."""
    places = [begun(checkpoint, rank) for rank in range(processes)]
    end = time.monotonic() + 600  # of a busy machine
    while not all(place.exists() and place.read_text() for place in places):
        assert time.monotonic() < end, "the processes did not start"
        time.sleep(0.01)
    return [int(place.read_text()) for place in places]


def fit(kind: str, checkpoint: Path, result: Path, processes: int) -> subprocess.Popen[str]:
    """The agent of a fit in several processes."""
    for rank in range(processes):
        begun(checkpoint, rank).unlink(missing_ok=True)
    return started(Path(__file__), kind, checkpoint, result, processes=processes)


def ended(agent: subprocess.Popen[str]) -> int:
    """Its exit status, when all of its processes have ended too."""
    _, errors = agent.communicate(timeout=900)
    if agent.returncode > 0:
        sys.stderr.write(errors[-2000:])
    return agent.returncode


def rounds(checkpoint: Path, processes: int) -> list[int]:
    """The latest round of each process; 0 if there is none."""
    found = []
    for rank in range(processes):
        path = checkpoint.with_name(f"{checkpoint.name}.process{rank}")
        known = path.exists()
        found.append(torch.load(path, weights_only=True)["state"]["round"] if known else 0)
    return found


def killed_together(
    kind: str, kills: int, folder: Path, draw: random.Random, processes: int
) -> tuple[list[list[int]], int]:
    """Rounds of the processes after each kill, and how many fits then ended as the whole one."""
    agent = fit(kind, folder / "whole", folder / "expected", processes)
    began(folder / "whole", processes)
    assert ended(agent) == 0
    last = (folder / "expected.0").stat().st_mtime
    duration = last - begun(folder / "whole", 0).stat().st_mtime
    found, alike = [], 0
    for number in range(kills):
        checkpoint, result = folder / f"{number}", folder / f"{number}.result"
        agent = fit(kind, checkpoint, result, processes)
        workers = began(checkpoint, processes)
        time.sleep(draw.uniform(0, 0.95) * duration)
        doomed = workers if number % 2 else [draw.choice(workers)]  # torchrun ends the others
        for worker in doomed:
            with contextlib.suppress(ProcessLookupError):  # it was faster than the first time
                os.kill(worker, signal.SIGKILL)
        agent.communicate(timeout=900)
        found.append(rounds(checkpoint, processes))
        for place in folder.glob(f"{number}.result*"):
            place.unlink()
        assert ended(fit(kind, checkpoint, result, processes)) == 0
        pairs = [
            [path.with_name(f"{path.name}.{rank}") for path in (folder / "expected", result)]
            for rank in range(processes)
        ]
        alike += all(same(*pair) for pair in pairs) and same(pairs[0][1], pairs[1][1])
        left = sorted(path.name for path in folder.glob(f".{number}*"))
        assert not left, f"temporaries stay behind: {left}"
    return found, alike


def main(kind: str, checkpoint: Path, result: Path) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    begun(checkpoint, rank).write_text(str(os.getpid()))
    fitted(kind, checkpoint, result.with_name(f"{result.name}.{rank}"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
