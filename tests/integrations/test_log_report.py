"""A log folder as one HTML file: all that was logged, or a clear refusal, and never half a file."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from torchkoopman_panels import SCHEMA, Series
from torchkoopman_tensorboard import PLUGIN_NAME, EventFolder, log, report
from torchkoopman_tensorboard.summary import _of_series, _tensor

from benchmarks.panels.drifting import drifting
from benchmarks.panels.logs import logged, write
from tests.integrations.test_tensorboard import surrogate
from tests.panels.test_page import block_of, index_of
from tests.processes import completed

if TYPE_CHECKING:
    import subprocess


def test_a_report_holds_all_that_was_logged(tmp_path: Path) -> None:
    steps = 1100  # more than TensorBoard keeps
    document = drifting(steps, modes=2, runs=("b", "a"), spans=1)
    path = report(logged(document, tmp_path / "runs"), tmp_path / "report.html")
    text = path.read_text("utf-8")
    index = index_of(text)
    assert index["title"] == "runs"
    assert index["warnings"] == []
    assert [entry["run"] for entry in index["series"]] == ["a"] * 4 + ["b"] * 4
    assert len(index["series"]) == len(document.arrays)
    for entry in index["series"]:
        about = json.dumps(entry["about"], sort_keys=True)
        arrays = document.arrays[entry["run"], entry["span"], entry["name"], about]
        header, values = block_of(text, entry["key"])
        assert header["steps"] == list(arrays)
        assert header["of"] == steps
        np.testing.assert_allclose(values, np.stack(list(arrays.values())), rtol=4e-3)


def test_notes_are_in_the_report_as_in_the_tab(tmp_path: Path) -> None:
    fit = surrogate()
    with SummaryWriter(str(tmp_path / "runs")) as writer:
        for step, notes in ((7, ("before",)), (9, ("first", "second"))):
            log(writer, fit.with_(record=replace(fit.record, notes=notes)), step)
    text = report(tmp_path / "runs", tmp_path / "r.html").read_text("utf-8")
    (entry,) = (each for each in index_of(text)["series"] if each["name"] == "notes")
    assert entry["about"]["notes"] == ["At step 9: first", "At step 9: second"]
    assert block_of(text, entry["key"])[0]["steps"] == [9]


def test_points_that_a_resumed_run_wrote_again_are_those_of_the_later_run(tmp_path: Path) -> None:
    for begin, value in ((0, 1.0), (20, 2.0)):
        folder = EventFolder(tmp_path / "runs").open(begin)
        for step in range(begin + 10, 50, 10):
            summary = [_of_series("1-9", Series("r2", np.full(1, value)))]
            folder.add_summary(Summary(value=summary), step)
        folder.close()
    text = report(tmp_path / "runs", tmp_path / "r.html").read_text()
    header, values = block_of(text, "0")
    assert header["steps"] == [10, 20, 30, 40]
    assert values[:, 0].tolist() == [1, 1, 2, 2]


def test_what_cannot_be_read_is_left_out_and_the_page_says_so(tmp_path: Path) -> None:
    def told(**own: object) -> bytes:
        return json.dumps({"schema": SCHEMA, "span": "1-9", "about": {}, **own}).encode()

    values = [
        _tensor("good", np.ones(2), PLUGIN_NAME, told(name="r2")),
        _tensor("later", np.ones(2), PLUGIN_NAME, told(name="r2", schema=SCHEMA + 1)),
        _tensor("text", np.array([b"a"], object), PLUGIN_NAME, told(name="losses")),
    ]
    write(tmp_path / "runs", {0: values})
    index = index_of(report(tmp_path / "runs", tmp_path / "r.html").read_text())
    assert [entry["name"] for entry in index["series"]] == ["r2"]
    later, text = index["warnings"]
    assert "later version" in later
    assert text == "losses of run '.' is left out: step 0 holds object instead of numbers."


def test_a_folder_that_is_not_there_or_holds_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        report(tmp_path / "nowhere", path)
    with pytest.raises(ValueError, match="no event files with series of the Koopman tab"):
        report(tmp_path, path)
    content = json.dumps({"schema": SCHEMA + 1, "span": "1-9", "name": "r2", "about": {}}).encode()
    write(tmp_path / "runs", {0: [_tensor("later", np.ones(2), PLUGIN_NAME, content)]})
    with pytest.raises(ValueError, match="later version"):
        report(tmp_path / "runs", path)
    assert not path.exists()


@pytest.mark.parametrize("place", ["nowhere/r.html", "file/r.html", "folder"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, place: str) -> None:
    runs = logged(drifting(steps=1, modes=2), tmp_path / "runs")
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="the report cannot be written to"):
        report(runs, tmp_path / place)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder", "runs"]


def test_a_report_that_breaks_off_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = logged(drifting(steps=1, modes=2), tmp_path / "runs")
    path = tmp_path / "r.html"
    path.write_text("before")

    def full(self: Path, text: str, encoding: str) -> None:
        self.write_bytes(text.encode(encoding)[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        report(runs, path)
    assert path.read_text() == "before"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["r.html", "runs"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return completed([sys.executable, "-m", "torchkoopman_tensorboard", *arguments], timeout=120)


def test_the_command_writes_a_report_or_says_why_not(tmp_path: Path) -> None:
    runs = logged(drifting(steps=2, modes=2), tmp_path / "runs")
    done = run(runs, tmp_path / "r.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'r.html'}: 0.")
    assert len(index_of((tmp_path / "r.html").read_text())["series"]) == 16
    refused = run(tmp_path / "nowhere", tmp_path / "r.html")
    assert refused.returncode == 2
    assert "there is no folder" in refused.stderr
    assert "Traceback" not in refused.stderr
