"""One writer for a path: a lock beside it, which ends with the process that holds it."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from torchkoopman.storage.whole import naming

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

if sys.platform != "win32":
    import fcntl


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Keep other writers away from ``path`` until the end of the block.

    The lock, ``path`` with ``.lock`` behind, names the process that holds it. One whose process is
    dead is taken over, also where children of that process live on with it open. On Windows, and on
    file systems without locks, nobody is kept away.

    Raises:
        RuntimeError: another process, or another thread of this one, writes to the path.
        OSError: the disk is full.
    """
    place = path.with_name(path.name + ".lock")
    lock = _taken(place, path)
    try:
        yield
    finally:
        if lock is not None:
            try:
                place.unlink(missing_ok=True)
            finally:
                os.close(lock)


def _taken(place: Path, path: Path) -> int | None:
    """The open lock; None where there are no locks."""
    if sys.platform == "win32":
        return None
    while True:
        lock = os.open(place, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode() or "unknown"
            os.close(lock)
            if holder.isdecimal() and not _lives(int(holder)):
                place.unlink(missing_ok=True)
                continue
            raise RuntimeError(
                f"process {holder} writes to {str(path)!r} already, and a second writer would "
                "overwrite what the first one needs. Give each fit a path of its own, or wait."
            ) from None
        except OSError:  # no locks here
            os.close(lock)
            return None
        own = False
        try:
            own = _same_file(place, lock)  # else its holder has just removed it
            if own:
                with naming(path):
                    os.truncate(lock, 0)
                    os.pwrite(lock, str(os.getpid()).encode(), 0)
                return lock
        except BaseException:  # the disk is full, say; kept, the lock would refuse this process too
            if own:
                place.unlink(missing_ok=True)
            os.close(lock)
            raise
        os.close(lock)


def _same_file(place: Path, lock: int) -> bool:
    try:
        return os.path.samestat(place.stat(), os.fstat(lock))
    except FileNotFoundError:
        return False


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
