"""Logs of rows: beside a file, what changed from one checkpoint to the next, appended.

A log holds :class:`Rows` as they were whenever it was written to: all of them first, then the ones
that had changed, the latest version of a row being the last. A file says which log it stands on, of
how many bytes and with which checksum; what comes behind those is of later files or of a writer
that was killed, and is not read. Only who began a log appends to it, so what was named once stays
as it is.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import secrets
import stat
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchkoopman.storage.errors import FileError, MissingFileError
from torchkoopman.storage.formats import damaged
from torchkoopman.storage.seals import digest
from torchkoopman.storage.whole import onto_disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from torchkoopman.storage.rows import Rows

_LONGEST = 2
"""A log of so many times what it holds is not appended to; another one begins."""
_RECORD = 2**20
"""Bytes of rows that are copied, summed and appended at once, while they are in the cache."""
_NUMBER = 8
"""Bytes of a row's number, and of how many rows a record has."""


class Logs:
    """The logs beside a file: for each of the rows in its state one that is appended to.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: dict[str, _Log] = {}

    def append(self, name: str, rows: Rows) -> dict[str, Any]:
        """Put rows as they are now onto the disk; returns what :func:`read_rows` takes.

        Args:
            name: of these rows among others of the same file.
            rows: as a whole.

        Raises:
            OSError: there is no room, or no permission; the next call begins another log.
        """
        log = self._open.get(name)
        if log is None or not log.takes(rows):
            place = self._path.with_name(f"{self._path.name}.rows-{secrets.token_hex(4)}")
            log = self._open[name] = _Log(place, rows)
            if self._path.is_file():  # who may not read one may not read the other
                place.chmod(stat.S_IMODE(self._path.stat().st_mode))
        return log.append(rows)

    def remove(self, needed: set[str]) -> None:
        """Remove the logs of the file but for those with these names."""
        for each in self.files():
            if each.name not in needed:
                each.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """The logs there are, those of no use among them."""
        own = re.compile(rf"{re.escape(self._path.name)}\.rows-[0-9a-f]{{8}}")
        return [each for each in self._path.parent.iterdir() if own.fullmatch(each.name)]


class _Log:
    """A log that is being written."""

    def __init__(self, path: Path, rows: Rows) -> None:
        self._path = path
        self._owner = rows.written
        self._columns = _columns(rows)
        self._stands = 0, hashlib.sha256(), -1
        """Bytes until now, their checksum, and the time of the latest of them."""
        path.touch(exist_ok=False)
        onto_disk(path.parent)

    def takes(self, rows: Rows) -> bool:
        """Whether it is to be appended to: of the same rows, as long as it should be, and short."""
        size, _, clock = self._stands
        if rows.written is not self._owner or _columns(rows) != self._columns:
            return False
        if not self._path.is_file() or self._path.stat().st_size != size:
            return False  # one that could not be written to the end, or was removed
        width = _width(self._columns)
        return size + len(rows.since(clock)) * width <= _LONGEST * len(rows[0]) * width

    def append(self, rows: Rows) -> dict[str, Any]:
        """Append what has changed."""
        size, known, clock = self._stands
        found, changed = known.copy(), rows.since(clock)
        with self._path.open("ab") as file:
            for chosen in torch.split(changed, max(1, _RECORD // _width(self._columns))):
                if len(chosen) == 0:  # where nothing has changed
                    break
                count = len(chosen).to_bytes(_NUMBER, "little")
                parts = (each[chosen.to(each.device)] for each in rows)
                contents: Iterator[bytes | memoryview] = map(_bytes, (chosen, *parts))
                for content in chain([count], contents):
                    found.update(content)
                    file.write(content)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        self._stands = size, found, rows.clock  # at once: else its size is not as it should be
        return {
            "log": self._path.name,
            "bytes": size,
            "sha256": found.hexdigest(),
            "rows": len(rows[0]),
            "columns": self._columns,
            "device": str(rows[0].device),
        }


def check_rows(folder: Path, named: Mapping[str, Any]) -> Path:
    """The log that a file in this folder stands on, if it has what the file says.

    Raises:
        FileError: it is not there, or has other content.
    """
    name: str = named["log"]
    path = folder / name
    if path.parent != folder or path.name != name:
        raise FileError(f"the rows should be in {name!r}, which is no file beside it")
    if not path.is_file():
        raise MissingFileError(
            f"its rows are in {name!r}, which is not beside it; copy both, or neither."
        )
    size = named["bytes"]
    if not 0 <= size <= path.stat().st_size or digest(path, size) != named["sha256"]:
        raise FileError(damaged(path, f"its first {size:,} bytes are not those that were written"))
    return path


def read_rows(folder: Path, named: Mapping[str, Any]) -> list[Tensor]:
    """The rows as they were when a file was written.

    Args:
        folder: of the file.
        named: what :meth:`Logs.append` returned.

    Raises:
        FileError: the log is not there, has other content, or is no log of such rows.
    """
    path, count = check_rows(folder, named), named["rows"]
    columns = [(getattr(torch, kind), tuple(shape)) for kind, shape in named["columns"]]
    width, size = _width(named["columns"]), named["bytes"]
    if not 0 <= count * width <= size:
        raise FileError(damaged(path, f"{size:,} bytes cannot hold {count:,} rows"))
    tensors = [torch.empty(count, *shape, dtype=kind) for kind, shape in columns]
    known = torch.zeros(count, dtype=torch.bool)
    with path.open("rb") as file:
        while (left := size - file.tell()) > 0:
            number = int.from_bytes(file.read(_NUMBER), "little")
            if not 0 < number <= (left - _NUMBER) // width:
                raise FileError(damaged(path, f"a record of {number:,} rows is longer than it"))
            where = _tensor(file, torch.long, (number,))
            if not 0 <= int(where.min()) <= int(where.max()) < count:
                raise FileError(damaged(path, f"there is a row beyond {count:,}"))
            for tensor, (kind, shape) in zip(tensors, columns, strict=True):
                tensor[where] = _tensor(file, kind, (number, *shape))
            known[where] = True
    if not known.all():
        raise FileError(damaged(path, "a row was never written"))
    return [each.to(named["device"]) for each in tensors]


def _columns(rows: Rows) -> list[tuple[str, list[int]]]:
    """Type and shape of a row in each tensor."""
    return [(str(each.dtype).removeprefix("torch."), list(each.shape[1:])) for each in rows]


def _width(columns: list[tuple[str, list[int]]]) -> int:
    """Bytes that a row takes in a record, with its number."""
    kinds = {kind: getattr(torch, kind).itemsize for kind, _ in columns}
    return _NUMBER + sum(int(kinds[kind]) * math.prod(shape) for kind, shape in columns)


def _bytes(tensor: Tensor) -> memoryview:
    """The memory of a tensor, or of a copy on the processor."""
    plain = tensor.detach().cpu().contiguous().flatten()
    return plain.view(torch.uint8).numpy().data


def _tensor(file: BinaryIO, kind: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """The next bytes of a file as a tensor."""
    content = bytearray(math.prod(shape) * kind.itemsize)
    file.readinto(content)  # type: ignore[attr-defined]
    return torch.frombuffer(content, dtype=kind).reshape(shape)
