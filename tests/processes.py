"""What processes of tests leave: those started by ``torchrun``, and those forked in no time."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.torchrun import environment, torchrun

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def completed(
    command: Sequence[object],
    *,
    timeout: float = 600,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """How a command ended; it and all its children are killed after ``timeout`` seconds.

    ``subprocess.run(timeout=…, capture_output=True)`` kills the command alone, and then waits
    without end for children of it that have its pipes. Here its output goes into files.

    Raises:
        AssertionError: it took longer. What it printed is in the message, and so is where each of
            its processes was, of those that have Python's fault handler on.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=cwd,
            env=environment() if env is None else env,
            stdout=out,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        late = False
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            late = True
            os.killpg(process.pid, signal.SIGABRT)
            time.sleep(1)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said = []
        for file in (out, errors):
            file.seek(0)
            said.append(file.read())
    if late:
        text = "\n".join(said)[-6000:]
        raise AssertionError(f"{command} did not end within {timeout} s; it said\n{text}")
    return subprocess.CompletedProcess(process.args, process.returncode, *said)


def results(
    script: Path, folder: Path, *cases: str, timeout: float = 300, processes: int = 2
) -> list[dict[str, Any]]:
    """What each process leaves as ``<folder>/<rank>.pt``; their script is given the folder first.

    Raises:
        AssertionError: one of them failed.
    """
    agent = completed([*torchrun(processes), script, folder, *cases], timeout=timeout)
    assert agent.returncode == 0, agent.stderr[-3000:]
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
            faulthandler.dump_traceback_later(240, exit=True)  # say where it hangs, and end
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
