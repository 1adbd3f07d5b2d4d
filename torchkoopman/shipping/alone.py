"""A program must run where this package is not installed."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


ALONE = """
import sys
sys.modules["torchkoopman"] = None  # importing it fails
import torch
program = torch.export.load(sys.argv[1])
args, kwargs = program.example_inputs
with torch.no_grad():
    program.module()(*args, **kwargs)
"""
"""Loads a program and runs it on its own example, where this package cannot be imported."""


def check_alone(path: Path) -> None:
    """See that a program runs in a process of its own that cannot import torchkoopman.

    Operations of other packages that the model uses are not known there either: what fails for
    want of these is no matter of the swap, and is left.

    Raises:
        RuntimeError: it needs torchkoopman.
    """
    command = [sys.executable, "-I", "-c", ALONE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "torchkoopman" in line]
    if done.returncode and ours:
        raise RuntimeError(
            f"the program does not run where torchkoopman is not installed: {ours[-1].strip()}"
        )
