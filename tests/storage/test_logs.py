"""Logs of rows: whatever was written comes back as it was then, and nothing else does."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from torchkoopman.storage.errors import FileError
from torchkoopman.storage.logs import Logs, check_rows, read_rows
from torchkoopman.storage.rows import Rows, with_rows, without_rows

WIDTH = 8 + 3 * 4 + 2 * 2 + 8
"""Bytes of a row with its number: three of float32, two of bfloat16, one integer."""
quiet = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Owner:
    """Rows with a clock, as a reservoir has them."""

    def __init__(self, capacity: int = 40, rows: int = 0) -> None:
        self.columns = [
            torch.zeros(capacity, 3),
            torch.zeros(capacity, 1, 2, dtype=torch.bfloat16),
            torch.zeros(capacity, dtype=torch.long),
        ]
        self.written = torch.zeros(capacity, dtype=torch.long)
        self.clock = self.filled = 0
        self.write(list(range(rows)))

    def write(self, where: list[int]) -> None:
        self.clock += 1
        self.filled = max([self.filled, *(each + 1 for each in where)])
        self.written[where] = self.clock
        values = self.clock + 100 * torch.arange(len(where))
        for column in self.columns:
            shape = len(where), *column.shape[1:]
            column[where] = values.reshape(-1, *[1] * (column.ndim - 1)).expand(shape).to(column)

    def rows(self) -> Rows:
        return Rows([each[: self.filled] for each in self.columns], self.written, self.clock)


def assert_same(mine: list[Tensor], theirs: list[Tensor]) -> None:
    assert [each.dtype for each in mine] == [each.dtype for each in theirs]
    assert all(torch.equal(one, other) for one, other in zip(mine, theirs, strict=True))


steps = st.lists(st.lists(st.integers(0, 39), max_size=12, unique=True), min_size=1, max_size=9)


@given(steps=steps)
@settings(quiet, max_examples=60)
def test_each_file_reads_the_rows_as_they_were_when_it_was_written(
    steps: list[list[int]], tmp_path: Path
) -> None:
    """Whatever was appended later, and where it began another log."""
    owner, logs = Owner(rows=20), Logs(tmp_path / "file")
    known: list[tuple[dict[str, Any], list[Tensor]]] = []
    for where in steps:
        owner.write([each for each in where if each < owner.filled + 1])
        known.append((logs.append("rows", owner.rows()), copy.deepcopy(owner.rows())))
    for named, rows in known:
        assert_same(read_rows(tmp_path, named), rows)


def test_only_rows_that_changed_are_appended(tmp_path: Path) -> None:
    owner, logs = Owner(rows=40), Logs(tmp_path / "file")
    first = logs.append("rows", owner.rows())
    owner.write([3, 7, 11])
    second, third = logs.append("rows", owner.rows()), logs.append("rows", owner.rows())
    assert first["bytes"] == 8 + 40 * WIDTH
    assert second["bytes"] - first["bytes"] == 8 + 3 * WIDTH
    assert third == second
    assert [each.name for each in logs.files()] == [first["log"]]


def test_a_log_that_would_be_twice_what_it_holds_is_not_appended_to(tmp_path: Path) -> None:
    owner, logs = Owner(rows=40), Logs(tmp_path / "file")
    sizes, names = [], []
    for _ in range(12):
        owner.write(list(range(15)))
        named = logs.append("rows", owner.rows())
        sizes.append(named["bytes"])
        names.append(named["log"])
    assert max(sizes) <= 2 * 40 * WIDTH
    assert len(set(names)) == 4
    logs.remove({names[-1]})
    assert [each.name for each in logs.files()] == [names[-1]]


def test_a_log_may_be_read_by_those_who_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(mode=0o600)
    named = Logs(path).append("rows", Owner(rows=4).rows())
    assert (tmp_path / named["log"]).stat().st_mode & 0o777 == 0o600


def test_other_rows_under_the_same_name_begin_a_log(tmp_path: Path) -> None:
    """As after a sync, a reset or a drift, where a reservoir is made anew: also by a copy."""
    owner, logs = Owner(rows=40), Logs(tmp_path / "file")
    other = copy.deepcopy(owner)
    first = logs.append("rows", owner.rows())
    other.write([0, 1])
    owner.write([5])
    for each in (other, owner, Owner(rows=7)):
        named = logs.append("rows", each.rows())
        assert named["log"] != first["log"]
        assert_same(read_rows(tmp_path, named), each.rows())


def test_two_writers_of_the_same_rows_each_write_what_the_other_has_written(tmp_path: Path) -> None:
    owner, writers = Owner(rows=40), [Logs(tmp_path / "one"), Logs(tmp_path / "two")]
    for number in range(6):
        owner.write([number, 39])
        for logs in writers[: 1 + number % 2]:
            named = logs.append("rows", owner.rows())
            assert_same(read_rows(tmp_path, named), owner.rows())


@pytest.mark.parametrize("harm", ["torn", "cut", "removed"])
def test_a_log_that_is_not_as_it_was_left_is_not_appended_to(harm: str, tmp_path: Path) -> None:
    """A record that was not written to the end, on a full disk or by a second Ctrl-C."""
    owner, logs = Owner(rows=40), Logs(tmp_path / "file")
    first = logs.append("rows", owner.rows())
    before, path = copy.deepcopy(owner.rows()), tmp_path / first["log"]
    content = path.read_bytes()
    path.write_bytes(content[:-1] if harm == "cut" else content + b"torn")
    if harm == "removed":
        path.unlink()
    owner.write([4])
    second = logs.append("rows", owner.rows())
    assert second["log"] != first["log"]
    assert_same(read_rows(tmp_path, second), owner.rows())
    if harm == "torn":
        assert_same(read_rows(tmp_path, first), before)


def test_a_full_disk_in_the_middle_of_a_record_leaves_what_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, logs = Owner(rows=40), Logs(tmp_path / "file")
    first, before = logs.append("rows", owner.rows()), copy.deepcopy(owner.rows())
    owner.write([4, 5])

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("torchkoopman.storage.logs.os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            logs.append("rows", owner.rows())
    assert_same(read_rows(tmp_path, first), before)
    assert_same(read_rows(tmp_path, logs.append("rows", owner.rows())), owner.rows())


def written(folder: Path) -> tuple[dict[str, Any], Path]:
    owner, logs = Owner(rows=12), Logs(folder / "file")
    logs.append("rows", owner.rows())
    owner.write([4, 5])
    named = logs.append("rows", owner.rows())
    return named, folder / named["log"]


@given(data=st.data())
@settings(quiet, max_examples=60)
def test_any_changed_byte_and_any_cut_is_seen(data: st.DataObject, tmp_path: Path) -> None:
    named, path = written(tmp_path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    for read in (read_rows, check_rows):
        with pytest.raises(FileError, match="is damaged: its first"):
            read(tmp_path, named)


FORGED: dict[str, tuple[dict[str, Any], str]] = {
    "more rows": ({"rows": 10**12}, "cannot hold 1,000,000,000,000 rows"),
    "fewer rows": ({"rows": 3}, "a row beyond 3"),
    "one more": ({"rows": 13}, "a row was never written"),
    "wider": ({"columns": [("float64", [10**9])]}, "cannot hold"),
    "other columns": ({"columns": [("int64", [])]}, "is longer than it|beyond 12"),
    "other folder": ({"log": "../file.rows-00000000"}, "no file beside it"),
    "missing": ({"log": "file.rows-00000000"}, "not beside it; copy both"),
    "longer": ({"bytes": 10**15}, "its first 1,000,000,000,000,000 bytes are not"),
}


@pytest.mark.parametrize("forgery", sorted(FORGED))
def test_what_does_not_fit_the_log_is_refused_before_memory_is_taken(
    forgery: str, tmp_path: Path
) -> None:
    named, _ = written(tmp_path)
    changes, message = FORGED[forgery]
    with pytest.raises(FileError, match=message):
        read_rows(tmp_path, {**named, **changes})


def test_rows_are_taken_out_of_a_state_and_put_back() -> None:
    rows = Owner(rows=4).rows()
    state = {"a": [1, {"rows": rows, 7: (2, 3)}], "b": None, "c": []}
    plain, found = without_rows(state)
    assert json.loads(json.dumps(plain)) == {
        "a": [1, {"rows": None, "7": [2, 3]}],
        "b": None,
        "c": [],
    }
    assert state["a"][1]["rows"] is rows, "the state itself stays"  # type: ignore[index]
    for keys, each in found:
        with_rows(plain, keys, list(each))
    assert plain["a"][1]["rows"] == list(rows)
    assert found[0][0] == ["a", 1, "rows"]


def test_a_copy_of_rows_is_a_plain_list_of_its_own_memory() -> None:
    owner = Owner(capacity=1000, rows=4)
    copied = copy.deepcopy({"rows": owner.rows()})["rows"]
    assert type(copied) is list
    assert copied[0].untyped_storage().nbytes() == 4 * 3 * 4
    owner.write([0])
    assert copied[2][0] == 1
