"""The bench: jobs run in processes of their own, results are kept, failures are told."""

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks import bench
from benchmarks.parts import cost as bench_cost
from benchmarks.parts import replacement as bench_replacement
from benchmarks.parts import systems as bench_systems
from benchmarks.tables import SEEDS, markdown, spread

PART = '''
"""A part of the bench, made by a test."""
import os
from pathlib import Path

from benchmarks.tables import seeds

def add():
    runs = Path("count")
    runs.write_text(str(int(runs.read_text()) + 1 if runs.exists() else 1))
    return {"sum": 3, "threads": os.environ["OMP_NUM_THREADS"], "seeds": seeds(True)}

def alone():
    return {"sum": 3, "seed": seeds(True)[-1]}

def fail():
    raise ValueError("nothing to measure")

def jobs(quick):
    return {"add": add, "alone": alone} if quick else {"add": add, "fail": fail}

def table(results):
    return f"sum {results['add']['sum']}"
'''


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bench of one part, in a folder of its own, whose processes find it too."""
    (tmp_path / "made_by_a_test.py").write_text(PART)
    driver = "import sys\nfrom benchmarks import bench\n"
    driver += "bench.PARTS = {'made': ('made_by_a_test', 2)}\nsys.exit(bench.main())\n"
    (tmp_path / "driver.py").write_text(driver)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (bench.ROOT, tmp_path))))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(bench, "PARTS", {"made": ("made_by_a_test", 2)})
    monkeypatch.setattr(bench, "MODULE", "driver")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "made_by_a_test", raising=False)
    return tmp_path


def test_results_land_as_json_and_markdown(part: Path) -> None:
    assert bench.main(["--quick"]) == 0
    folder = part / "runs/bench/quick"
    result = json.loads((folder / "bench.json").read_text())["made"]["add"]
    assert result["sum"] == 3
    assert result["threads"] == "1"
    assert result["seconds"] >= 0
    assert "sum 3" in (folder / "bench.md").read_text()


def test_other_seeds_reach_the_jobs_and_their_results_lie_apart(
    part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SEEDS, "")  # and gone again after the test
    assert bench.main(["--quick"]) == 0
    assert bench.main(["--quick", "--seeds", "7", "8"]) == 0
    for folder, seeds in (("quick", [0]), ("quick-7-8", [7, 8])):
        results = json.loads((part / "runs/bench" / folder / "bench.json").read_text())
        assert results["made"]["add"]["seeds"] == seeds
        assert results["made"]["add"]["origin"]["seeds"] == seeds
        assert results["made"]["alone"]["origin"]["seeds"] == seeds[-1:]


def test_a_job_that_has_a_result_is_not_run_again_but_with_fresh(part: Path) -> None:
    for _ in range(2):
        assert bench.main(["--quick"]) == 0
        assert (part / "count").read_text() == "1"
    assert bench.main(["--quick", "--fresh"]) == 0
    assert (part / "count").read_text() == "2"


def test_a_job_that_fails_is_named_and_the_others_are_kept(
    part: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main([]) == 1
    printed = capsys.readouterr()
    assert "failed: made/fail" in printed.err
    assert "Not measured: fail." in printed.out
    assert "nothing to measure" in (part / "runs/bench/full/made/fail.log").read_text()
    assert (part / "runs/bench/full/made/add.json").exists()


def test_mnist_takes_part_where_its_folder_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("replacement", "forgetting", "topology"):
        monkeypatch.setenv("TORCHKOOPMAN_DATA", "somewhere")
        assert any("mnist" in job for job in bench.jobs(name, False))
        assert not any("mnist" in job for job in bench.jobs(name, True))
        monkeypatch.delenv("TORCHKOOPMAN_DATA")
        assert not any("mnist" in job for job in bench.jobs(name, False))


@pytest.mark.parametrize("name", bench.PARTS)
def test_every_part_has_jobs_and_the_quick_bench_is_smaller(name: str) -> None:
    quick, full = bench.jobs(name, True), bench.jobs(name, False)
    assert quick
    assert len(quick) <= len(full)
    assert isinstance(bench.module(name), ModuleType)


def test_the_cost_part_finds_every_benchmark() -> None:
    known = {"closed_form", "flat_memory"}
    known |= {"swap_memory", "watching"}
    assert set(bench_cost.benchmarks()) == known


def test_a_goal_that_is_missed_is_said_to_be() -> None:
    result = {
        "accuracy": {"network": 0.99, "autoencoder": 0.98},
        "fvu": {"autoencoder": {"blocks.1": 0.01}},
        "seconds of fit": {"autoencoder": 5.0},
    }
    assert "loses 1.00 in 5.0 s (the slowest 5.0): MISSED" in bench_replacement.table(
        {"yinyang-0": result}
    )
    near = {**result, "accuracy": {"network": 0.99, "autoencoder": 0.989}}
    assert "loses 0.10 in 5.0 s (the slowest 5.0): met" in bench_replacement.table(
        {"yinyang-0": near}
    )


def test_tables_are_markdown_with_mean_and_spread() -> None:
    text = markdown(["name", "value"], [["a", spread([1.0, 3.0])], ["b", spread([2.0], sign=True)]])
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "2.00 ± 1.41" in lines[2]
    assert "+2.00" in lines[3]


def known(system: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"known": {"systems": [system]}}


def test_a_peer_that_is_not_installed_is_said_to_be_and_is_no_bound() -> None:
    trust = {"leading": 3, "found": 3, "found and trusted": 3, "wrong": 2, "wrong and trusted": 0}
    trust["found to no better"] = 0
    result = {"name": "toy", "rows": 10, "ours": [0.2, 0.1, 0.3], "trust": [trust]}
    result |= {
        "closures": [0.1],
        "peers": {"kooplearn": [0.19], "deeptime": []},
        "absent": {"deeptime": "no module"},
    }
    text = bench_systems.table(known(result))
    assert "not installed" in text
    assert "deeptime: no module" in text
    assert "met" in text.splitlines()[4]
    worse = {**result, "peers": {"kooplearn": [0.18], "deeptime": []}}
    assert "MISSED" in bench_systems.table(known(worse))
    trusting = {**result, "trust": [{**trust, "wrong and trusted": 1}]}
    assert "MISSED" in bench_systems.table(known(trusting))
