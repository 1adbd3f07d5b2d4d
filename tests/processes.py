"""Processes for tests: started by ``torchrun``, as users start theirs, or forked in no time."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]


def environment() -> dict[str, str]:
    """Of a process that imports the tests' modules as this one does, with one thread."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def started(script: Path, *arguments: object, processes: int = 2) -> subprocess.Popen[str]:
    """The agent of so many processes that run a script, with one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", str(script)]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(
    script: Path, folder: Path, *cases: str, timeout: float = 300, processes: int = 2
) -> list[dict[str, Any]]:
    """What each process leaves as ``<folder>/<rank>.pt``; their script is given the folder first.

    Raises:
        AssertionError: one of them failed.
    """
    with started(script, folder, *cases, processes=processes) as agent:
        try:
            _, errors = agent.communicate(timeout=timeout)
        finally:
            agent.terminate()
    assert agent.returncode == 0, errors[-3000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(processes)]


def forked(size: int, work: Callable[[int], object]) -> list[int]:
    """How so many children of this process, which must have no threads, end what each does.

    Returns:
        Their exit statuses by rank: 0, 1 after an exception, or less than 0 by a signal.
    """
    children = []
    for rank in range(size):
        sys.stdout.flush()
        child = os.fork()
        if not child:
            status = 1
            try:
                work(rank)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
