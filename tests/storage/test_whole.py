"""A file is whole or not there, whoever is killed, and nothing of the dead stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from torchkoopman.storage import whole as source
from torchkoopman.storage.whole import whole

KNOWN = f"""
import runpy, sys
from pathlib import Path
whole = runpy.run_path({source.__file__!r})["whole"]  # without torch, which takes seconds
"""
SLOW = """
import time
with whole(Path(sys.argv[1])) as place:
    place.write_bytes(b"half")
    place.with_name("beside").write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""
MANY = """
for turn in range(100):
    with whole(Path(sys.argv[1])) as place:
        place.write_bytes(sys.argv[2].encode() * 20_000)
"""


def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", KNOWN + code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def writing(path: Path) -> "subprocess.Popen[str]":
    """A process that has begun to write a file and is not done."""
    process = start(SLOW, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)


def write(path: Path, content: bytes) -> None:
    with whole(path) as place:
        place.write_bytes(content)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"second"):
        write(path, content)
        assert path.read_bytes() == content
        assert names(tmp_path) == ["file"]


def test_a_file_written_beside_comes_along(tmp_path: Path) -> None:
    with whole(tmp_path / "file") as place:
        place.write_bytes(b"program")
        place.with_name("file.data").write_bytes(b"weights")
        assert not (tmp_path / "file").exists()
    assert names(tmp_path) == ["file", "file.data"]


def test_an_error_while_writing_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "file", b"old")

    def fail() -> None:
        with whole(tmp_path / "file") as place:
            place.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_writing_nothing_is_an_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    write(tmp_path / "file", b"old")
    with pytest.raises(FileNotFoundError, match="nothing was written"), whole(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError, match=r"file' is a folder"):
        write(tmp_path / "file", b"new")
    assert names(tmp_path) == ["file"]


def test_the_next_writer_clears_away_what_a_killed_one_left(tmp_path: Path) -> None:
    path = tmp_path / "file [1]*.bin"
    write(path, b"old")
    for process in [writing(path) for _ in range(3)]:
        kill(process)
    assert path.read_bytes() == b"old"
    assert len(names(tmp_path)) == 4, "each kill leaves a folder"
    write(tmp_path / "other", b"other")
    assert len(names(tmp_path)) == 5, "another path's writer leaves them alone"
    write(path, b"new")
    assert names(tmp_path) == [path.name, "other"]
    assert path.read_bytes() == b"new"


def test_the_folder_of_a_live_writer_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    process = writing(path)
    with whole(path) as place:
        write(path, b"in between")
        place.write_bytes(b"later")
    assert path.read_bytes() == b"later"
    (folder,) = tmp_path.glob(".file.*.part")
    assert {"file", "beside"} <= set(names(folder))
    kill(process)
    write(path, b"new")
    assert names(tmp_path) == ["file"]


def test_a_name_that_begins_as_another_is_another(tmp_path: Path) -> None:
    process = writing(tmp_path / "a.b")
    kill(process)
    write(tmp_path / "a", b"")
    assert len(list(tmp_path.glob(".a.b.*.part"))) == 1
    hidden = tmp_path / ".a.notes"
    hidden.mkdir()
    write(tmp_path / "a", b"")
    assert hidden.exists()


def test_many_writers_of_one_path_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    processes = [start(MANY, path, letter) for letter in "abcd"]
    seen = set()
    deadline = time.monotonic() + 120
    while any(process.poll() is None for process in processes):
        assert time.monotonic() < deadline
        if path.exists():
            content = path.read_bytes()
            assert len(content) == 20_000
            assert len(set(content)) == 1
            seen.add(content[:1])
        time.sleep(0.001)
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0] * 4
    assert names(tmp_path) == ["file"]
    assert len(seen) > 1


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_file_has_the_permissions_of_the_one_before_or_of_any_new_file(tmp_path: Path) -> None:
    path, plain = tmp_path / "file", tmp_path / "plain"
    plain.write_bytes(b"")
    for _ in range(2):
        with whole(path) as place:
            place.touch(mode=0o600)  # as safetensors does
        assert path.stat().st_mode == plain.stat().st_mode
        path.chmod(0o640)
        plain.chmod(0o640)


def test_a_file_and_what_is_beside_it_change_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full, or an interrupt comes, while the second of two is put onto the disk."""

    def both(content: bytes) -> None:
        with whole(tmp_path / "file") as place:
            place.write_bytes(content)
            place.with_name("file.data").write_bytes(content)

    both(b"old")
    calls = list[Path]()

    def full(path: Path) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(source, "onto_disk", full)
    with pytest.raises(OSError, match="No space"):
        both(b"new")
    assert names(tmp_path) == ["file", "file.data"]
    assert {each.read_bytes() for each in tmp_path.iterdir()} == {b"old"}


def test_a_folder_for_which_there_is_no_room_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        with pytest.raises(OSError, match="No space"):
            write(tmp_path / "file", b"new")
    assert not names(tmp_path)


def test_a_folder_whose_removal_was_interrupted_is_cleared_away_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one of the same process too: nothing keeps the lock."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(source, "_remove", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "file", b"first")
    assert len(names(tmp_path)) == 2
    write(tmp_path / "file", b"second")
    assert names(tmp_path) == ["file"]
