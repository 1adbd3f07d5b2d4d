"""One writer for a path: its lock does not outlive an error, also within one process."""

import os
from pathlib import Path

import pytest

from torchkoopman.storage.writers import only_writer


def write(path: Path) -> None:
    with only_writer(path):
        assert path.with_name("file.lock").read_text() == str(os.getpid())


def test_a_lock_for_which_there_was_no_room_is_let_go_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match=r"/file' could not be written \(No space left") as told:
            write(path)
    assert told.value.errno == 28
    assert not list(tmp_path.iterdir())
    write(path)


@pytest.mark.parametrize("call", ["truncate", "pwrite"])
def test_so_is_one_that_was_interrupted(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, known = tmp_path / "file", getattr(os, call)

    def interrupted(*arguments: object) -> int:
        known(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, call, interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(path)
    assert not list(tmp_path.iterdir())
    write(path)


def test_a_lock_whose_removal_fails_is_let_go_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(path)
    write(path)
    assert not list(tmp_path.iterdir())
