"""Files of tensors: safetensors with a format number and a checksum over all of their bytes.

The checksum stands in the header, and is that of the file with zeros in its place. A file is read
into memory whole, so that nothing done to it later changes what was read.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from torchkoopman.storage.errors import FileError, require_file
from torchkoopman.storage.formats import FORMAT, as_number, check_format, damaged, parsed
from torchkoopman.storage.seals import DIGITS, blocks
from torchkoopman.storage.whole import whole
from torchkoopman.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import BinaryIO

    from torch import Tensor

NUMBER, WRITER, TORCH = "torchkoopman.format", "torchkoopman.version", "torchkoopman.torch"
"""Keys of the metadata: the format's number, and the versions that wrote the file."""
_SEAL = "torchkoopman.sha256"
_BEFORE = f'"{_SEAL}":"'.encode()
_LARGEST = 100_000_000
"""Bytes of a header that safetensors reads."""
_TENSOR, _ROOM = 1600, 48 * 2**20
"""Bytes that a tensor takes in memory beside its numbers, and what all may take so beyond the size
of the file: reading takes at most four times the file and 64 MB."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors, from the CPU, and texts; the file is there whole or as it was before.

    Raises:
        ValueError: so many small tensors that :func:`read_tensors` would refuse the file.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with whole(path) as place:
        save_tensors(plain, place, unsealed(metadata))
        _check_readable(path, place, len(plain))
        seal_tensors(place)


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file as it is given.

    Raises:
        OSError: the disk is full, say, which safetensors has an error of its own for.
    """
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        if (number := re.search(r"os error (\d+)", str(error))) is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _check_readable(path: Path, written: Path, tensors: int) -> None:
    try:
        with written.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            parsed(written, _header(written, file, size), "its header")
            _check_count(written, tensors, size)
    except FileError as error:
        raise ValueError(
            f"{str(path)!r} was not written: {tensors:,} tensors so small take far more memory "
            "than their file, and no such file is read. Statistics of thousands of classes in few "
            "coordinates are so many: surrogate.with_(statistics=None) leaves them out."
        ) from error


def _check_count(path: Path, tensors: int, size: int) -> None:
    """See that so many tensors are no more than a file of this size may hold.

    Raises:
        FileError: they are.
    """
    if tensors * _TENSOR > _ROOM + size:
        raise FileError(
            f"{str(path)!r} holds {tensors:,} tensors in {size:,} bytes, which would take far more "
            "memory than that. It is not read; write it without the statistics of its classes, "
            "surrogate.with_(statistics=None), by the torchkoopman that wrote it."
        )


def unsealed(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata with a format number, the versions, and room for a checksum."""
    known = {NUMBER: str(FORMAT), WRITER: __version__, TORCH: str(torch.__version__)}
    return {**metadata, **known, _SEAL: "0" * DIGITS}


def seal_tensors(path: Path) -> None:
    """Put the checksum of a safetensors file with :func:`unsealed` metadata into its place.

    The metadata are put in order first, which safetensors leaves to chance: equal contents make
    equal files.
    """
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        header = _in_order(_header(path, file, size))
        file.seek(8)
        file.write(header)
        place = 8 + header.index(_BEFORE) + len(_BEFORE)
        found = _digest(file, size, place)
        file.seek(place)
        file.write(found.encode())


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a file that :func:`write_tensors` or an older version wrote.

    The tensors are the caller's own. At most three times the size of the file is held at once.

    Raises:
        MissingFileError: there is no such file.
        FileError: it is no safetensors file, damaged, or of a format that is not known.
    """
    data = require_file(path).read_bytes()
    metadata, tensors = _metadata(path, io.BytesIO(data), len(data))
    _check_count(path, tensors, len(data))
    try:
        views = load(data)
    except Exception as error:  # SafetensorError, and what torch says to types it has not
        raise FileError(damaged(path, f"safetensors cannot read it ({error})")) from error
    del data
    # Into memory of torch's own, whose alignment decides in which order some kernels sum.
    return metadata, {name: views.pop(name).clone() for name in list(views)}


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a file alone; its checksum is compared all the same.

    Raises:
        MissingFileError: there is no such file.
        FileError: it is no safetensors file, damaged, or of a format that is not known.
    """
    with require_file(path).open("rb") as file:
        return _metadata(path, file, os.fstat(file.fileno()).st_size)[0]


def _metadata(path: Path, file: BinaryIO, size: int) -> tuple[dict[str, str], int]:
    """The metadata, and how many tensors there are."""
    header = _header(path, file, size)
    sealed = _is_sealed(path, file, size, header)
    described = parsed(path, header, "its header")
    texts = described.get("__metadata__", {}) if isinstance(described, dict) else None
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise FileError(damaged(path, "its header is not that of a safetensors file"))
    check_format(path, as_number(texts.get(NUMBER)), sealed, texts.get(WRITER))
    return texts, len(described) - ("__metadata__" in described)


def _in_order(header: bytes) -> bytes:
    """The same header with its metadata sorted, in as many bytes."""
    described = json.loads(header)
    described["__metadata__"] = dict(sorted(described["__metadata__"].items()))
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(text) <= len(header), "safetensors writes JSON as short as Python"
    return text.ljust(len(header))


def _header(path: Path, file: BinaryIO, size: int) -> bytes:
    """The header's text, after its length."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _LARGEST):
        raise FileError(
            f"{str(path)!r} is not a safetensors file, or one cut short: it has {size:,} bytes, "
            f"and {length:,} should be its header's alone."
        )
    return file.read(length)


def _is_sealed(path: Path, file: BinaryIO, size: int, header: bytes) -> bool:
    seals = header.count(_BEFORE)
    if seals == 0:
        return False
    place = header.index(_BEFORE) + len(_BEFORE)
    said = header[place : place + DIGITS]
    if seals > 1 or said != _digest(file, size, 8 + place).encode():
        raise FileError(damaged(path, "its checksum does not match its content"))
    return True


def _digest(file: BinaryIO, size: int, place: int) -> str:
    """The checksum of a file with zeros at ``place``."""
    found = hashlib.sha256()
    file.seek(0)
    for block in blocks(file, place):
        found.update(block)
    found.update(b"0" * DIGITS)
    file.seek(place + DIGITS)
    for block in blocks(file, size - place - DIGITS):
        found.update(block)
    return found.hexdigest()
