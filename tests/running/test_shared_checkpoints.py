"""``tk.fit(checkpoint=…)`` in several processes: whichever dies, all go on from one round."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.torchrun import ROOT
from tests.fitting.resumable import assert_same_bits
from tests.processes import completed
from tests.running.shared_checkpoints_worker import RESUMED, WRITING

WORKER = Path(__file__).with_name("shared_checkpoints_worker.py")

pytestmark = pytest.mark.slow


class Found:
    """What each process of each call left behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = completed([sys.executable, WORKER, folder], timeout=600)

    def __call__(self, name: str) -> list[dict[str, Any]]:
        """The results of a call, in the order of the ranks; of the killed none."""
        paths = sorted(self.folder.glob(f"{name}.?.pt"))
        assert paths, self.run.stderr[-3000:]
        return [torch.load(path) for path in paths]

    def errors(self, name: str) -> list[str]:
        """What each process of a call raised."""
        return [each["error"] for each in self(name)]

    def ended(self, name: str) -> list[dict[str, Any]]:
        """The surrogates' tensors: the same in both processes."""
        found = self(name)
        assert not [each["error"] for each in found if "error" in each]
        tensors = [{k: v for k, v in each.items() if k != "warnings"} for each in found]
        assert len(tensors) == 2
        assert_same_bits(*tensors)
        return tensors


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return Found(tmp_path_factory.mktemp("calls"))


@pytest.mark.parametrize(("kind", "shards"), RESUMED)
def test_processes_that_were_killed_end_as_if_they_had_not_been(
    found: Found, kind: str, shards: str
) -> None:
    """Once one, once both; of shards with other batches, and of an empty one, calibration too."""
    whole = found.ended(f"{kind} {shards} whole")
    assert_same_bits(whole[0], found.ended(f"{kind} {shards}")[0])


@pytest.mark.parametrize(("dying", "number"), WRITING)
def test_who_is_killed_while_writing_leaves_a_round_of_all(
    found: Found, dying: int, number: int
) -> None:
    name = f"writing {dying} {number}"
    (survivor,) = found(f"{name} killed")
    assert "waited for another one that died" in survivor["error"]
    assert_same_bits(found.ended("whole")[0], found.ended(name)[0])
    anew = [any("starts from scratch" in said for said in each["warnings"]) for each in found(name)]
    assert anew == [(dying, number) in ((0, 1), (0, 2), (1, 1))] * 2
    left = [path.name for path in found.folder.glob(f".ckpt {name}*")]
    assert not left, "temporaries stay behind"


REFUSED = {
    "options": ("ValueError.*rank=-1 and rank=3",) * 2,
    "options of one": ("process 1: .*rank=-1 and rank=3", "ValueError.*rank=-1 and rank=3"),
    "every": ("every=0 must be",) * 2,
    "loader of one": ("process 1: .*global random numbers", "ValueError.*global random numbers"),
    "data of one": ("waited for another one", "batch 15 of the loader, or one before it"),
    "model": ("model='",) * 2,
    "one process": ("processes=2 and processes=1",),
    "three processes": ("processes=2 and processes=3",) * 3,
    "two for one": ("processes=1 and processes=2",) * 2,
    "without": (r"processes \[1\] got no checkpoint=",) * 2,
    "files gone": (r"process 0 has \[2, 3\], process 1 has none",) * 2,
    "files both damaged": ("process 0 has none.*is damaged.*is damaged",) * 2,
    "files folder": ("process 1: .*process1' is no file", "ValueError.*process1' is no file"),
    "files foreign": ("they are of different fits",) * 2,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_checkpoint_of_this_fit_is_refused_in_all_processes(
    found: Found, name: str
) -> None:
    errors = found.errors(name)
    assert len(errors) == len(REFUSED[name])
    for error, expected in zip(errors, REFUSED[name], strict=True):
        assert pytest.RaisesExc(Exception, match=f"(?s){expected}").matches(Exception(error)), error


@pytest.mark.parametrize(("name", "said"), [("latest gone", ""), ("damaged", "process1' is dam")])
def test_the_round_before_is_taken_where_a_file_of_the_latest_is_no_good(
    found: Found, name: str, said: str
) -> None:
    assert_same_bits(found.ended("whole")[0], found.ended(f"files {name}")[0])
    for each in found(f"files {name}"):
        assert any(said in text and "from round 2" in text for text in each["warnings"]) or not said


def test_a_second_writer_is_kept_away_and_the_first_goes_on(found: Found) -> None:
    assert_same_bits(
        found.ended("whole")[0],
        {k: v for k, v in found("busy")[1].items() if k not in ("warnings", "second")},
    )
    assert "writes to" in found("busy")[0]["second"][0]


@pytest.mark.parametrize("told", ["both", "one"])
def test_an_interrupt_of_any_process_stops_all_behind_a_checkpoint(found: Found, told: str) -> None:
    """Each behind its own batch; the one that was not told behind the one when it next meets."""
    rows = ["140", "160"] if told == "both" else ["200", "160"]
    for count, error in zip(rows, found.errors(f"interrupted {told}"), strict=True):
        assert error.startswith(
            f"KeyboardInterrupt: the fit was stopped after {count} rows of this"
        )
        assert f"holds what was learnt of {count} rows of this process; the same call" in error
    assert_same_bits(found.ended("whole")[0], found.ended(f"interrupted {told} resumed")[0])


def test_the_same_rows_in_two_processes_are_noticed(found: Found) -> None:
    for each in found("alike"):
        assert "processes [0, 1] begin with the same batch" in each["warnings"][0]
    assert not any("same batch" in said for each in found("whole") for said in each["warnings"])


def test_a_fit_that_had_ended_gives_the_same_again_without_a_forward_pass(found: Found) -> None:
    assert_same_bits(found.ended("ended first")[0], found.ended("ended")[0])


def test_fits_under_torchrun_killed_at_random_moments_go_on(tmp_path: Path) -> None:
    """A share of ``make resume`` in two processes."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.durability.killed",
        "--kills",
        "1",
        "--processes",
        "2",
    ]
    command += ["--folder", str(tmp_path), "--kinds", "edmd", "--seed", "1"]
    run = completed(command, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 of 1 equal" in run.stdout
