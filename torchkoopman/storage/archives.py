"""Archives of torch.export: sealed in the zip file's comment, and read without unpacking anything.

A zip file may end in a comment, which torch leaves empty. ``torch.export.load`` does not mind it.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from functools import partial
from typing import TYPE_CHECKING, Any

from torchkoopman.storage.errors import FileError
from torchkoopman.storage.formats import FORMAT, check_format, damaged
from torchkoopman.storage.seals import DIGITS, count, is_sealed, seal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MARK = f"torchkoopman format {FORMAT} sha256 ".encode()
_ENTRY = b"PK\x01\x02"
"""What each entry of a zip file's directory begins with."""
_MEMBER, _ROOM = 1200, 32 * 2**20
"""Bytes that ``zipfile`` takes for an entry, and what all may take beyond the size of the file."""


class Sink(io.RawIOBase):
    """A file for ``torch.export.save``, which keeps an error of the disk for :meth:`close`.

    Torch ends the process where it cannot write, and where writing raises an error.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._error: OSError | None = None

    def writable(self) -> bool:
        """It is, as far as torch sees."""
        return True

    def seekable(self) -> bool:
        """It is too; torch goes to the beginning when all is written."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go there, unless something failed before."""
        self._try(partial(self._file.seek, offset, whence))
        return offset

    def write(self, content: Any) -> int:
        """Write, unless something failed before."""
        self._try(partial(self._file.write, content))
        return memoryview(content).nbytes

    def _try(self, call: Callable[[], object]) -> None:
        if self._error is None:
            try:
                call()
            except OSError as error:
                self._error = error

    def close(self) -> None:
        """Write what is left.

        Raises:
            OSError: what happened until now.
        """
        if self.closed:
            return
        super().close()
        self._file.close()
        if self._error is not None:
            raise self._error


def seal_archive(path: Path) -> None:
    """Put a checksum of an archive into its comment."""
    with path.open("r+b") as file:
        file.seek(-2, 2)
        assert file.read(2) == b"\0\0", "torch writes no comment"
        file.seek(-2, 2)
        file.write(struct.pack("<H", len(_MARK) + DIGITS))
    seal(path, _MARK)


def text_in_archive(path: Path, name: str) -> bytes | None:
    """The extra file of this name in an archive.

    Raises:
        FileError: not an archive, damaged, or of a format that is not known.
    """
    sealed = is_sealed(path, _MARK)
    entries = count(path, _ENTRY)
    if entries * _MEMBER > _ROOM + 2 * path.stat().st_size:
        raise FileError(
            f"{str(path)!r} lists {entries:,} files, more than an archive of this size holds. "
            "torch.export did not write it."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            _check_comment(path, archive.comment, sealed)
            return _stored(path, archive, name)
    except FileError:
        raise
    except Exception as error:  # zipfile has more errors than BadZipFile
        raise FileError(f"{str(path)!r} is not an archive of torch.export ({error}).") from error


def _check_comment(path: Path, comment: bytes, sealed: bool) -> None:
    """See that a comment is a seal that is right, or that there is none, as in older files."""
    said = re.match(rb"torchkoopman format (\d{1,9}) ", comment)
    if said is not None:
        check_format(path, int(said[1]), sealed, None)
    elif comment or sealed:
        raise FileError(damaged(path, "its checksum is gone"))


def _stored(path: Path, archive: zipfile.ZipFile, name: str) -> bytes | None:
    """The content of the file ``<folder>/extra/<name>``; an archive has one folder at its root."""
    found = [entry for entry in archive.infolist() if entry.filename.endswith(f"/extra/{name}")]
    if not found:
        return None
    entry, size = found[0], path.stat().st_size
    plain = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
    if len(found) > 1 or not plain or entry.file_size > size:
        raise FileError(
            f"{str(path)!r} has {len(found)} entries {name!r}, of {entry.file_size:,} bytes in "
            f"{entry.compress_size:,}; torch.export stores one, uncompressed, and did not write "
            "this. It is not unpacked."
        )
    with archive.open(entry) as file:
        return file.read(entry.file_size + 1)  # to the end, where its own checksum is compared
