"""Measuring: contenders timed in turn on one thread, and their memory in processes of their own.

Times are processor times, so that waiting for others is left out, and mean something only as
ratios: in every turn all contenders run, one right after the other, in an order that rotates.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).parents[2]

Row = dict[str, float]
"""``least`` and ``median`` seconds; ``ratio`` to the first contender, median over the turns, and
``ratio_of_least``, of the shortest times."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch computes on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_turn(contenders: Mapping[str, Callable[[], object]], turns: int) -> dict[str, Row]:
    """Time contenders in turn on one thread, after a turn to warm up."""
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    with one_thread():
        for turn in range(turns + 1):
            first = turn % len(names)
            for name in [*names[first:], *names[:first]]:
                start = time.process_time()
                contenders[name]()
                if turn:
                    times[name].append(time.process_time() - start)
    reference = times[names[0]]
    return {
        name: {
            "least": min(took),
            "median": median(took),
            "ratio": median(a / b for a, b in zip(took, reference, strict=True)),
            "ratio_of_least": min(took) / min(reference),
        }
        for name, took in times.items()
    }


def peak_bytes(module: str, function: str, **arguments: Any) -> int:
    """How much a fresh process grows while it runs what ``function(**arguments)`` returns.

    The function imports, draws data and warms up; what it returns does the work. Large blocks go
    back to the system at once in that process, so that the allocator's reserve does not count.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": str(2**17),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
    }
    command = [sys.executable, "-m", "benchmarks.costs.measuring", module, function]
    done = subprocess.run(
        [*command, json.dumps(arguments)], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{module}.{function}({arguments}) failed:\n{done.stderr}")
    return int(done.stdout.splitlines()[-1])


def ratios(rows: Mapping[str, Row], name: str) -> str:
    """A contender's ratio as it stands in a table: median over turns, and that of least times."""
    row = rows.get(name)
    return "not installed" if row is None else f"{row['ratio']:.2f} ({row['ratio_of_least']:.2f})"


def megabytes(size: float | None) -> str:
    """A size in MB (10⁶ bytes)."""
    return "–" if size is None else f"{size / 1e6:.0f} MB"


def verdict(met: bool, full: bool = True) -> str:
    """Whether a goal is met, in a word that is seen; goals are for the full size alone."""
    if not full:
        return "not for this size"
    return "met" if met else "**missed**"


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def _measure(module: str, function: str, arguments: dict[str, Any]) -> int:
    """Growth of this process's peak (VmHWM) over what it holds before the work."""
    torch.set_num_threads(1)
    work = getattr(importlib.import_module(module), function)(**arguments)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmHWM")
    work()
    return _status("VmHWM") - before


if __name__ == "__main__":
    print(_measure(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
