"""ONNX files: sealed by an entry of metadata at their end, and read without parsing the graph.

An ONNX file is one protobuf message, and what is appended to such a message belongs to it: an entry
is added without reading the rest. To read, the fields at the top are stepped over by their lengths.
Format: https://protobuf.dev/programming-guides/encoding, ModelProto in onnx.proto.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from torchkoopman.storage.errors import FileError
from torchkoopman.storage.formats import FORMAT, as_number, check_format, damaged, parsed
from torchkoopman.storage.seals import DIGITS, digest, is_checksum, is_sealed, seal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

_SEAL, _BESIDE, _NUMBER = "torchkoopman.sha256", "torchkoopman.beside", "torchkoopman.format"
_METADATA = 14
"""Number of ModelProto's field metadata_props, entries with a key (1) and a value (2)."""
_FIELDS = 100_000
"""A model has at most so many fields at the top."""


def seal_onnx(path: Path) -> None:
    """Append format number and checksum of an ONNX file, also those of the weights beside it."""
    beside = sorted(file for file in path.parent.iterdir() if file.name.startswith(path.name + "."))
    sums = json.dumps({file.name: digest(file) for file in beside})
    with path.open("ab") as file:
        file.write(_entry(_NUMBER, str(FORMAT)) + (_entry(_BESIDE, sums) if beside else b""))
    seal(path, _mark())


def text_in_onnx(path: Path, key: str) -> str | None:
    """The metadata of this key in an ONNX file.

    Raises:
        FileError: no ONNX file, one that is damaged or lacks the weights beside it, or one of a
            format that is not known.
    """
    sealed = is_sealed(path, _mark())
    try:
        texts = dict(_texts(path, {key, _BESIDE, _NUMBER}))
    except (EOFError, ValueError) as error:
        raise FileError(f"{str(path)!r} is not an ONNX file ({error}).") from error
    number = texts.get(_NUMBER)
    check_format(path, as_number(number), sealed, None)
    if _BESIDE in texts:
        _check_beside(path, texts[_BESIDE])
    return texts.get(key)


def _check_beside(path: Path, text: str) -> None:
    sums = parsed(path, text, "the list of its weights")
    for name, expected in sums.items() if isinstance(sums, dict) else ():
        file = path.parent / name
        known = isinstance(expected, str) and is_checksum(expected)
        if not (known and file.parent == path.parent and file.name == name):
            raise FileError(
                damaged(path, f"it has weights in {name!r}, which is no file beside it")
            )
        if not file.is_file() or digest(file) != expected:
            raise FileError(damaged(file, f"it is not what {path.name!r} was written with"))


def _mark() -> bytes:
    """What the seal begins with: the entry without its value."""
    return _entry(_SEAL, "0" * DIGITS)[:-DIGITS]


def _entry(key: str, value: str) -> bytes:
    """An entry of metadata in protobuf."""
    inner = b"".join(
        bytes([number << 3 | 2]) + _varint(len(text)) + text
        for number, text in ((1, key.encode()), (2, value.encode()))
    )
    return bytes([_METADATA << 3 | 2]) + _varint(len(inner)) + inner


def _texts(path: Path, keys: set[str]) -> Iterator[tuple[str, str]]:
    """The entries of metadata with these keys."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for seen, (number, length) in enumerate(_fields(file, size)):
            if seen == _FIELDS:
                raise ValueError(f"more than {_FIELDS:,} fields")
            if number != _METADATA or length is None:
                continue
            end, parts = file.tell() + length, {}
            for inner, width in _fields(file, end):
                if inner in (1, 2) and width is not None:
                    parts[inner] = file.read(width)
            key = parts.get(1, b"").decode()
            if key in keys:
                yield key, parts.get(2, b"").decode()


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int | None]]:
    """Number and length of each field up to ``end``; its content may be read, or is stepped over.

    The length of a number is None.
    """
    while file.tell() < end:
        key = _read_varint(file)
        kind, length = key & 7, None
        match kind:
            case 0:
                _read_varint(file)
                following = file.tell()
            case 1 | 5:
                following = file.tell() + (8 if kind == 1 else 4)
            case 2:
                length = _read_varint(file)
                following = file.tell() + length
            case _:
                raise ValueError(f"a field of kind {kind}")
        if following > end:
            raise EOFError("a field ends behind the file")
        yield key >> 3, length
        file.seek(following)


def _read_varint(file: BinaryIO) -> int:
    value = 0
    for place in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise EOFError("it ends within a field")
        value |= (byte[0] & 127) << place
        if byte[0] < 128:
            return value
    raise ValueError("a number of more than ten bytes")


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
