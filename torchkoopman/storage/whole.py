"""A file is written whole or not at all: beside its place, onto the disk, then into its place.

Who is killed while writing leaves a hidden folder behind, and the old file as it was. The next
writer of the same path clears it away; a lock, which ends with the process that holds it, tells the
folder of a dead writer from that of a live one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

if sys.platform != "win32":
    import fcntl

_LOCK = ".lock"
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Full, full for this user, too small for files of this size, and failing."""


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write what shall be at ``path``: a path of the same name in a hidden folder.

    At the end of the block the file there, and any that were written beside it, are put onto the
    disk and take the place of what was there, ``path`` itself last: whoever finds it finds the
    others. After an error nothing has changed. Of two writers at once the later one stays. A
    symbolic link at ``path`` is replaced, and not followed.

    Raises:
        FileNotFoundError: the folder of ``path`` does not exist, or nothing was written.
        IsADirectoryError: ``path`` is a folder.
        OSError: the disk is full, or fails; it names ``path``.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder, in whose place no file is written.")
    _clear(path)
    with naming(path):
        folder, lock = _locked_folder(path)
        try:
            yield folder / path.name
            written = [file for file in folder.iterdir() if file.name != _LOCK]
            if folder / path.name not in written:
                raise FileNotFoundError(f"nothing was written for {str(path)!r}.")
            for file in written:
                file.chmod(_mode(path.parent / file.name, lock))
                onto_disk(file)
            for file in sorted(written, key=lambda file: file.name == path.name):
                os.replace(file, path.parent / file.name)
            onto_disk(path.parent)
        finally:
            _give_up(folder, lock)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let the errors of a disk say which file it could not take."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_DISKS:
            raise
        raise OSError(
            error.errno,
            f"{str(path)!r} could not be written ({error.strerror}). Make room for it, or write it "
            "elsewhere; what was there before is as it was.",
        ) from error


def _give_up(folder: Path, lock: int | None) -> None:
    """Remove a folder, and let go of it in any case, so that the next writer may remove it."""
    try:
        _remove(folder)
    finally:
        if lock is not None:
            os.close(lock)


def _mode(place: Path, lock: int) -> int:
    """The permissions of the file that is replaced, or those that any new file would get."""
    known = place.stat() if place.is_file() else os.fstat(lock)
    return stat.S_IMODE(known.st_mode)


def _locked_folder(path: Path) -> tuple[Path, int]:
    """A new folder beside ``path``, and the open lock in it."""
    while True:
        folder = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
        folder.mkdir()
        lock = None
        try:
            # Until it is locked, another writer's _clear takes the folder for a dead writer's.
            with contextlib.suppress(FileNotFoundError):
                lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
                if _is_ours(folder, lock):
                    return folder, lock
                os.close(lock)
        except BaseException:  # the disk is full, say
            _give_up(folder, lock)
            raise


def _is_ours(folder: Path, lock: int) -> bool:
    try:
        _lock(lock)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: there nothing is cleared away either
        return True
    return (folder / _LOCK).exists()


def _clear(path: Path) -> None:
    """Remove what killed writers of ``path`` left."""
    own = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.part")
    for folder in path.parent.iterdir():
        if not own.fullmatch(folder.name):
            continue
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR)
        except FileNotFoundError:  # killed before or after everything else; or just beginning
            with contextlib.suppress(OSError):
                folder.rmdir()
            continue
        except OSError:
            continue
        try:
            _lock(lock)
            _remove(folder)
        except OSError:  # its writer lives, or there are no locks to tell
            continue
        finally:
            os.close(lock)


def _lock(lock: int) -> None:
    """Take a lock.

    Raises:
        BlockingIOError: another has it.
        OSError: there are no locks here.
    """
    if sys.platform == "win32":
        raise OSError("Windows has no flock.")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove(folder: Path) -> None:
    """Remove a folder, its lock last: a folder without one must be empty."""
    for file in sorted(folder.iterdir(), key=lambda file: file.name == _LOCK):
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file, ignore_errors=True)
        else:
            file.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):  # without a lock anybody may clear it away
        folder.rmdir()


def onto_disk(path: Path) -> None:
    """Have the system write a file's content, or a folder's list of names, onto the disk."""
    if sys.platform == "win32" and path.is_dir():
        return
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)
