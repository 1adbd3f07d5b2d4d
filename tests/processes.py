"""What processes of tests leave: those started by ``torchrun``, and those forked in no time."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.torchrun import started

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
