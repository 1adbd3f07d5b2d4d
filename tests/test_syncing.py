"""``fitter.sync()`` and ``tk.fit`` in real processes: 1, 2 and 4 of them, some of which die."""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import torchkoopman as tk
from benchmarks.torchrun import environment
from tests.processes import completed

WORKER = Path(__file__).with_name("forked_worker.py")
ROOT = WORKER.parents[1]

EXCHANGES = (0, 1, 4, 9, 14, 99)
KILLED = [f"3:killed:{exchange}" for exchange in EXCHANGES]
FITTED = [f"2:fitted:{case}" for case in ("dmd,even", "edmd,uneven", "edmd,empty")]
LEARNT = ["2:fitted:autoencoder,even", "2:fitted:autoencoder,empty"]
AGAIN = [f"{size}:again:" for size in (1, 2, 4)]
OTHERS = [
    "4:uneven:",
    "2:wide:",
    "2:refused:",
    "4:grouped:",
    "3:killed:6s",
    "2:trained:",
    "2:ranked:",
]
EXAMPLES = ["2:example:torchrun_fit", "2:example:fsdp2_fit"]
GROUPS = [*AGAIN, *OTHERS, *KILLED, *FITTED, *LEARNT, *EXAMPLES]

pytestmark = pytest.mark.slow


def worker() -> Any:
    spec = importlib.util.spec_from_file_location("forked_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Groups:
    """What the processes of every group left behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = completed([sys.executable, "-W", "error", WORKER, folder, *GROUPS])

    def __call__(self, group: str) -> list[dict[Any, Any]]:
        """The results of a group's processes, in the order of their ranks; of the killed none."""
        results = [self.folder / group / f"{rank}.pt" for rank in range(int(group[0]))]
        expected = len(results) - ("killed" in group)
        assert sum(path.exists() for path in results) == expected, self.run.stderr[-3000:]
        return [torch.load(path) for path in results if path.exists()]


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Groups:
    return Groups(tmp_path_factory.mktemp("groups"))


@pytest.fixture(scope="module")
def one() -> dict[tuple[str, str], dict[str, Any]]:
    """Kind, dtype → the fit of one process that streams the same batches and never syncs."""
    module, found = worker(), {}
    for dtype in (torch.float64, torch.float32):
        for kind in ("dmd", "step", "edmd"):
            fitter = module.closed_form(kind, dtype)
            for batch in module.BATCHES:
                fitter.update(module.trajectory(batch, dtype))
            found[kind, str(dtype)] = module.summary(fitter.surrogate)
    return found


def assert_alike(results: list[dict[Any, Any]]) -> None:
    """The same bits in every process."""
    for other in results[1:]:
        assert set(other) == set(results[0])
        for name, value in results[0].items():
            same = torch.equal(value, other[name]) if torch.is_tensor(value) else None
            assert value == other[name] if same is None else same, name


@pytest.mark.parametrize("syncs", [1, 4, 20])
@pytest.mark.parametrize("group", AGAIN)
def test_operators_of_many_processes_are_that_of_one_however_often_they_sync(
    groups: Groups, one: dict[tuple[str, str], dict[str, Any]], group: str, syncs: int
) -> None:
    results = groups(group)
    for (kind, dtype), expected in one.items():
        tolerance = 1e-10 if "64" in dtype else 1e-7
        found = [each[kind, dtype, syncs] for each in results]
        assert_alike(found)
        assert f"rows={worker().ROWS}," in found[0]["record"]
        for name, value in expected.items():
            if torch.is_tensor(value) and name != "evidence":
                error = (found[0][name] - value).abs().max()
                assert error <= tolerance * value.abs().max(), (kind, dtype, name)


def test_rows_of_wide_layers_that_one_process_holds_back_count_once_in_all(
    groups: Groups, one: dict[tuple[str, str], dict[str, Any]]
) -> None:
    results = groups("2:wide:")
    assert [each.pop("held") for each in results] == [2, 0]
    assert [each.pop("left") for each in results] == [0, 0]
    assert_alike(results)
    for name, value in one["dmd", "torch.float64"].items():
        if torch.is_tensor(value) and name != "evidence":
            assert (results[0][name] - value).abs().max() <= 1e-10 * value.abs().max(), name


def test_each_row_counts_once_with_empty_processes_and_readings_between_syncs(
    groups: Groups, one: dict[tuple[str, str], dict[str, Any]]
) -> None:
    results = groups("4:uneven:")
    assert [each.pop("between") for each in results] == [1100, 1100, 1200, 1100]
    assert_alike(results)
    expected = one["step", "torch.float64"]["operator.rows"]
    torch.testing.assert_close(results[0]["operator.rows"], expected, rtol=0, atol=1e-10)


SAYS = {
    "pairs": "options: process 0 has {'pairs': 'adjacent'}, process 1 has {'pairs': 'all'}",
    "options": "options: process 0 has {'ridge': 1e-09}, process 1 has {'ridge': 1e-06}",
    "rank": "options: process 0 has {'rank': 2}, process 1 has {'rank': 3}",
    "observables": "process 1 has {'observables': [['RandomFeatures', {'count': 8,",
    "latent": "options: process 0 has {'latent': 5,",
    "fitter": "fitter: process 0 has DMDFitter, process 1 has EDMDFitter",
    "layers": "layers: process 0 has ('0', '1', '2'), process 1 has ('0', '1')",
    "widths": "widths: process 0 has {'0': 6, '1': 6, '2': 6}, process 1 has {'0': 5,",
    "dtype": "dtype: process 0 has torch.float32, process 1 has torch.float64",
    "calibration": "call calibrate(trajectory) with the same trajectory in every process",
    "halflife": "process 1: a halflife weighs a row by how many rows came after it",
    "syncs": "syncs: process 0 has (0, ''), process 1 has (1, ",
}


@pytest.mark.parametrize("difference", SAYS)
def test_processes_that_differ_are_refused_in_all_of_them_in_the_same_words(
    groups: Groups, difference: str
) -> None:
    first, second = (each[difference] for each in groups("2:refused:"))
    assert first == second
    assert SAYS[difference] in first


def test_a_group_is_the_dimension_along_which_rows_differ(groups: Groups) -> None:
    for found in groups("4:grouped:"):
        assert 'as mesh["dp"]' in found["refusal"]
        assert found["rows"] == worker().ROWS  # not twice as many


@pytest.mark.parametrize("group", KILLED)
def test_survivors_hold_exactly_the_state_before_or_after(groups: Groups, group: str) -> None:
    after = groups("3:killed:99")[0]["state"]
    assert after != "before"
    for survivor in groups(group):
        assert survivor["waited"] < 10
        if survivor["error"]:
            assert survivor["state"] == "before"
            assert "sync number 2 broke off" in survivor["error"]
            assert survivor["rows"] == 80  # 60 shared, 20 of its own
        else:
            assert survivor["state"] == after
            assert survivor["rows"] == 120
    lived = group.endswith(":99")
    assert all(bool(survivor["error"]) != lived for survivor in groups(group))


def test_a_process_that_stays_away_is_given_up_after_the_timeout(groups: Groups) -> None:
    for survivor in groups("3:killed:6s"):
        assert survivor["state"] == "before"
        assert 2.5 < survivor["waited"] < 5.5  # it slept for six seconds; the limit is three


@pytest.mark.parametrize("group", [*FITTED, *LEARNT])
def test_tk_fit_gives_every_process_the_same_surrogate(groups: Groups, group: str) -> None:
    """Calibrated together, of all rows but those held out, the report on them included."""
    results = groups(group)
    assert_alike(results)
    assert 2690 <= results[0]["rows"] <= 2710
    assert "ridge map" in results[0]["record"]


@pytest.mark.parametrize("group", EXAMPLES)
def test_examples_run_under_torchrun(groups: Groups, group: str) -> None:
    results = groups(group)
    assert_alike(results)
    assert results[0]["rows"] in (6000, 3600)  # the latter holds a tenth out
    assert not group.endswith("torchrun_fit") or (
        tk.Surrogate.load(groups.folder / group / "process-0.safetensors").record.rows == 6000
    )


def test_jobs_that_never_meet_become_the_surrogate_of_one_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "examples")
    job = importlib.import_module("array_job")
    for shard in range(3):
        job.stream(shard)
    merged, alone = job.merge(3), job.fitter()
    with tk.attach(model := job.network(), job.LAYERS) as probe:
        probe.stream_to(alone)
        for batch in torch.cat([job.inputs(shard) for shard in range(3)]).split(100):
            model(batch)
    assert merged.record.rows == 4500
    expected = alone.surrogate.operator.matrix()
    torch.testing.assert_close(merged.operator.matrix(), expected, rtol=0, atol=1e-4)


def test_only_the_first_process_prints(groups: Groups) -> None:
    said = (groups.run.stdout + groups.run.stderr).count("predicted by")
    assert said == len([*FITTED, *LEARNT, *EXAMPLES])


def test_autoencoders_sync_train_together_and_go_on_from_their_state(groups: Groups) -> None:
    results = groups("2:trained:")
    for found in results:
        assert found["steps"] == 0  # rows came after the first sync, and no step was taken apart
        apart, unequal = found["refusals"]
        assert "rows that the others do not know; sync() first" in apart
        assert "process 0 has 10, process 1 has 11" in unequal
        assert found["synced"]  # again, without new rows: nothing changes
        assert found["resumed"] == [1200, found["record"]]
    assert_alike(results)


@pytest.mark.parametrize("cut", [3, 5, 0])
@pytest.mark.parametrize("name", ["plain", "features", "positions", "on"])
def test_spans_are_ranked_as_by_one_process_that_has_the_shards_one_after_the_other(
    groups: Groups, name: str, cut: int
) -> None:
    """An odd number of batches before one's own, none, and statistics of an earlier ranking."""
    module, key = worker(), "on" if name == "on" else (name, cut)
    first, second = (each[key] for each in groups("2:ranked:"))
    assert first == second
    if name == "positions":  # each process draws its own
        assert first["rows"] == 2 * 148
        return
    generator = torch.Generator().manual_seed(0 if cut else 7)  # of the first that has a batch
    options = {"generator": generator, **module.RANKED.get(name, {})}
    expected = module.spans_of(module.ranking(module.tokens(), **options))
    assert first["rows"] == expected["rows"] == 3 * 148
    assert first["costs"] == expected["costs"]
    for mine, theirs in zip(first["spans"], expected["spans"], strict=True):
        assert mine[:2] == theirs[:2]
        assert mine[2:] == pytest.approx(theirs[2:], abs=1e-6)


RANKING_SAYS = {
    "layers": r"differ in layers: process 0 has ('1', '3'), process 1 has ('1', '5')",
    "ridge": "differ in options: process 0 has {'ridge': 1e-07}, process 1 has {'ridge': 0.001}",
    "observables": "differ in options: process 0 has {'observables': []",
    "statistics": "differ in statistics",
    "few": "it got 1 with 90 rows",
    "alike": "no error, 888 rows",
}


@pytest.mark.parametrize("way", RANKING_SAYS)
def test_processes_that_cannot_rank_together_are_refused_in_all(groups: Groups, way: str) -> None:
    first, second = (each[way] for each in groups("2:ranked:"))
    assert first == second
    assert RANKING_SAYS[way] in first
    assert ("[0, 1] begin with the same batch" in first) == (way == "alike")


def test_fit_refuses_processes_that_know_of_no_group(tmp_path: Path) -> None:
    """Each would fit its own shard, and nobody would notice."""
    script = tmp_path / "script.py"
    script.write_text(
        "import torch, torchkoopman as tk\n"
        "net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())\n"
        "tk.fit(net, [torch.randn(99, 4)], ['0', '1'], method='dmd')\n"
    )
    launched = {"WORLD_SIZE": "2", "RANK": "0", "TORCHELASTIC_RUN_ID": "one"}
    run = completed([sys.executable, script], env={**environment(), **launched})
    assert run.returncode != 0
    assert "torch.distributed.init_process_group() first" in run.stderr
