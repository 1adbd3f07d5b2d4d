"""Seals: a checksum at the end of a file, over everything before it."""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

from torchkoopman.storage.errors import FileError
from torchkoopman.storage.formats import damaged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

DIGITS = 64
"""Length of a SHA-256 in hexadecimal digits."""
_BLOCK = 2**20


def blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The next ``size`` bytes of a file, a part at a time."""
    while size > 0 and (block := file.read(min(size, _BLOCK))):
        yield block
        size -= len(block)


def digest(path: Path, size: int | None = None) -> str:
    """SHA-256 of the first ``size`` bytes of a file, by default of all."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        for block in blocks(file, path.stat().st_size if size is None else size):
            found.update(block)
    return found.hexdigest()


def seal(path: Path, mark: bytes) -> None:
    """Append ``mark`` and the checksum of what the file holds."""
    found = digest(path)
    with path.open("ab") as file:
        file.write(mark + found.encode())


def is_sealed(path: Path, mark: bytes) -> bool:
    """Whether a file ends in a seal.

    Raises:
        FileError: it does, and its content is not what was sealed.
    """
    size = path.stat().st_size - len(mark) - DIGITS
    if size < 0:
        return False
    with path.open("rb") as file:
        file.seek(size)
        end = file.read(len(mark) + DIGITS)
    if not end.startswith(mark):
        return False
    if end[len(mark) :] != digest(path, size).encode():
        raise FileError(damaged(path, "its checksum does not match its content"))
    return True


def is_checksum(text: str) -> bool:
    """Whether it looks like one."""
    return re.fullmatch(f"[0-9a-f]{{{DIGITS}}}", text) is not None


def count(path: Path, pattern: bytes) -> int:
    """How often a pattern occurs in a file; occurrences may not overlap."""
    found, before = 0, b""
    with path.open("rb") as file:
        for block in blocks(file, os.fstat(file.fileno()).st_size):
            text = before + block
            found += text.count(pattern)
            before = text[-(len(pattern) - 1) :]
    return found
