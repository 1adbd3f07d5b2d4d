"""The time of a swap is printed beside that of a forward pass and of an earlier commit."""

import sys
from pathlib import Path

import pytest

from benchmarks.costs import swap_time


def test_times_are_kept_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(swap_time, "WARM", 0)
    monkeypatch.setattr(swap_time, "REPEATS", 1)
    monkeypatch.setattr(swap_time, "memory", lambda fresh: None)  # for this process it would stay
    monkeypatch.setattr(swap_time.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(swap_time.gc, "collect", lambda: None)  # of all that other tests left
    path = tmp_path / "before.json"
    monkeypatch.setattr(sys, "argv", ["swap_time", str(path), "--models", "MLP"])
    for columns in (3, 6):
        swap_time.main()
        rows = capsys.readouterr().out.splitlines()
        assert [row.split(",")[0] for row in rows[2:]] == ["| MLP"] * 3
        assert all(row.count("|") == columns + 1 for row in rows)


def test_all_models_can_be_swapped_as_said() -> None:
    for make in (swap_time.mlp, swap_time.bert):
        subject = make()
        subject.swap(subject.ways[-1])
        subject.forward()
