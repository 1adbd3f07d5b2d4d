"""Fits killed (SIGKILL) at random moments and called again: the same surrogate, bit by bit.

``python -m benchmarks.durability.killed --kills 20`` prints, for each fitter, at how many rows the
checkpoint stood that the next call went on from. With ``--processes 2`` each fit is one of two
processes under ``torchrun``, of which one is killed, or both; it prints the rounds that each had
written.
"""

import argparse
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from benchmarks.durability.fits import OPTIONS, fitted, same
from benchmarks.durability.killed_together import killed_together
from torchkoopman.running.checkpoints import Checkpoints


def started(kind: str, checkpoint: Path, result: Path) -> int:
    """A process of its own for one call."""
    if (process := os.fork()) == 0:
        status = 1
        try:
            fitted(kind, checkpoint, result)
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    return process


def ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def rows_behind(checkpoint: Path) -> int:
    """Rows of the latest checkpoint; 0 if there is none."""
    if not checkpoint.exists():
        return 0
    state = torch.load(Checkpoints(checkpoint).path, weights_only=True)["state"]
    rows: int = state["holdout"]["rows"]
    return rows


def named_logs(checkpoint: Path) -> set[str]:
    """The logs that the latest checkpoint and the one before it stand on."""
    files = Checkpoints(checkpoint)
    contents = [torch.load(path, weights_only=True) for path in (files.path, files.previous)]
    return {rows["log"] for content in contents for _, rows in content["rows"]}


def killed(kind: str, kills: int, folder: Path, draw: random.Random) -> tuple[list[int], int]:
    """Rows of the checkpoint after each kill, and how many fits then ended as the whole one."""
    begun = time.perf_counter()
    assert ended(started(kind, folder / "whole", folder / "expected")) == 0
    duration = time.perf_counter() - begun
    rows, alike = [], 0
    for number in range(kills):
        checkpoint, result = folder / f"{number}", folder / f"{number}.result"
        process = started(kind, checkpoint, result)
        time.sleep(draw.uniform(0.02, 0.95) * duration)
        os.kill(process, signal.SIGKILL)
        ended(process)
        rows.append(rows_behind(checkpoint))
        result.unlink(missing_ok=True)
        assert ended(started(kind, checkpoint, result)) == 0
        alike += same(folder / "expected", result)
        left = sorted(path.name for path in folder.glob(f".{number}*"))
        assert not left, f"temporaries stay behind: {left}"
        logs = {path.name for path in folder.glob(f"{number}.rows-*")}
        assert logs == named_logs(checkpoint), f"logs of no use stay behind: {logs}"
    return rows, alike


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kinds", nargs="*", default=list(OPTIONS))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    draw, failed = random.Random(chosen.seed), 0
    for kind in chosen.kinds:
        folder = chosen.folder / kind
        folder.mkdir(parents=True)
        if chosen.processes > 1:
            rounds, alike = killed_together(kind, chosen.kills, folder, draw, chosen.processes)
            left = f"rounds written by each process {sorted(rounds)}"
        else:
            rows, alike = killed(kind, chosen.kills, folder, draw)
            left = f"went on behind rows {sorted(rows)}"
        failed += chosen.kills - alike
        print(f"{kind:14} {alike} of {chosen.kills} equal; {left}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
