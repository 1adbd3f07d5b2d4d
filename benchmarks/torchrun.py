"""Processes of a script, started by ``torchrun`` as users start theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment() -> dict[str, str]:
    """Of a process that imports this checkout's modules as this one does, with one thread."""
    ours = [str(ROOT), str(ROOT / "integrations"), str(ROOT / "examples")]
    path = os.pathsep.join([*ours, os.environ.get("PYTHONPATH", "")])
    told = {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", "PYTHONPATH": path}
    return {**os.environ, **told}


def torchrun(processes: int) -> list[str]:
    """The command that runs a script in so many processes; the script follows."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    return [*command, "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]


def started(script: Path, *arguments: object, processes: int = 2) -> subprocess.Popen[str]:
    """The agent of so many processes that run a script, with one thread each."""
    return subprocess.Popen(
        [*torchrun(processes), str(script), *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
