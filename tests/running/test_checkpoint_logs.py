"""Checkpoints with a log, their writer killed at any moment: what is read is what was written."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from tests.processes import completed
from torchkoopman.fitting.replay import Reservoir
from torchkoopman.running.checkpoints import Checkpoints

ROW, PLACES, BATCH, KILLS = 2 * 50 * 4, 400, 30, 25
RUN = {"of": "a test"}


def paths(number: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(BATCH, 2, 50, generator=generator)


def reservoir() -> Reservoir:
    return Reservoir((ROW + 16) * PLACES, torch.Generator().manual_seed(7))


def write(path: Path) -> None:
    """Checkpoints without end, on from the latest one, a batch between two."""
    files, rows = Checkpoints(path), reservoir()
    state = files.read(RUN)
    number = 0 if state is None else state["number"]
    if state is not None:
        rows.load_state_dict(state["reservoir"])
    while True:
        rows.add(paths(number))
        number += 1
        files.write(RUN, {"number": number, "reservoir": rows.state_dict()})


def killed(path: Path) -> list[int]:
    """Numbers of the checkpoints that were there after each kill."""
    draw, expected, reached, numbers = random.Random(0), reservoir(), 0, []
    for _ in range(KILLS):
        child = os.fork()
        if child == 0:
            write(path)
        time.sleep(draw.uniform(0.02, 0.3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        files = Checkpoints(path)
        found, damaged = files.found(RUN)
        assert not damaged, damaged
        assert len(found) == path.exists() + files.previous.exists()
        numbers.append(max((state["number"] for state in found.values()), default=0))
        if found:
            state = files.taken(next(iter(found)))
            assert state["number"] == numbers[-1] >= reached
            for number in range(reached, numbers[-1]):
                expected.add(paths(number))
            reached = numbers[-1]
            for mine, theirs in zip(state["reservoir"]["sample"], expected.parts(), strict=True):
                assert torch.equal(mine, theirs)
            logs = list(path.parent.glob("*.rows-*"))
            assert 1 <= len(logs) <= 2, logs
    return numbers


def test_whenever_its_writer_is_killed_a_checkpoint_has_the_rows_of_its_moment(
    tmp_path: Path,
) -> None:
    """Logs are appended to, ended and begun in between; none of use is lost, and no other stays."""
    code = (
        "import sys, torch; from pathlib import Path\n"
        "from tests.running.test_checkpoint_logs import killed\n"
        "torch.set_num_threads(1)\n"
        "numbers = killed(Path(sys.argv[1]))\n"
        "assert len(set(numbers)) > 5 and numbers[-1] > 40, numbers\n"
    )
    run = completed(
        [sys.executable, "-c", code, tmp_path / "checkpoint"], cwd=Path(__file__).parents[2]
    )
    assert run.returncode == 0, run.stderr
