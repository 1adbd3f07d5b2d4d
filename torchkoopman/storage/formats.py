"""Format: which files this version writes and reads, and how a description in them is parsed.

Format 1 had neither a number nor a checksum. Format 2 has both; a file with one of them alone is
damaged, so no single flipped bit makes a file look like an older one.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from torchkoopman.storage.errors import FileError
from torchkoopman.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 2
"""What is written."""
UNNUMBERED = 1
"""What files without a number are."""
_ROOM, _TIMES = 48 * 2**20, 2.5
"""Bytes that the objects of a description may take beyond so many times the size of its file."""
_VALUE, _CONTAINER = 60, 120
"""Bytes of what JSON makes: of a short text or a number in a list, and of an empty list more."""


def check_format(path: Path, number: object, sealed: bool, writer: object) -> None:
    """See that a file is of a format that this version reads.

    Args:
        path: the file.
        number: the format as the file says it; None where it does not.
        sealed: whether the file has a checksum, which was right.
        writer: the version of torchkoopman that wrote it, if it says so.

    Raises:
        FileError: a format that is not known, or what no version wrote.
    """
    by = f" by torchkoopman {writer}" if isinstance(writer, str) else ""
    if number is None and not sealed:
        if _newer(writer):  # the number decides where there is one
            raise FileError(
                f"{str(path)!r} was written{by}, which is newer than this version, {__version__}, "
                "but has no format number as newer files do. Read it with the version that wrote "
                "it."
            )
        return
    if number is not None and (type(number) is not int or not UNNUMBERED < number <= FORMAT):
        raise FileError(
            f"{str(path)!r} was written{by} in format {number!r}; this version, {__version__}, "
            f"reads formats up to {FORMAT}. Install a newer torchkoopman, or write the file again "
            "with this one."
        )
    if number is None or not sealed:
        lacking = "format number" if number is None else "checksum"
        raise FileError(damaged(path, f"its {lacking} is gone"))


def check_writer(path: Path, writer: object) -> None:
    """See that a file without a format number is not of a version that gives one.

    Raises:
        FileError: the version is above the one installed.
    """
    check_format(path, None, False, writer)


def as_number(text: str | None) -> int | str | None:
    """A format's number; a text that is none stays as it is, to be shown."""
    return int(text) if text is not None and re.fullmatch("[1-9][0-9]{0,8}", text) else text


def damaged(path: Path, why: str) -> str:
    """The message for a file that is not as it was written."""
    return (
        f"{str(path)!r} is damaged: {why}. It is not what torchkoopman wrote; copy it again from "
        "where it is whole, or write it again."
    )


def parsed(path: Path, text: str | bytes, what: str) -> Any:
    """What a JSON text says, unless it would take far more memory than its file.

    Raises:
        FileError: no JSON, nested too deeply, or of too many values.
    """
    comma, colon, brace, bracket = (",:{[") if isinstance(text, str) else _BYTES
    values = text.count(comma) + text.count(colon)  # type: ignore[arg-type]
    containers = text.count(brace) + text.count(bracket)  # type: ignore[arg-type]
    if _VALUE * values + _CONTAINER * containers > _ROOM + _TIMES * path.stat().st_size:
        raise FileError(
            f"{str(path)!r}: {what} has {values:,} values and {containers:,} lists, which would "
            "take far more memory than a file of this size. torchkoopman writes no such file."
        )
    try:
        return json.loads(text)
    except RecursionError as error:
        raise FileError(
            f"{str(path)!r}: {what} is nested too deeply. torchkoopman did not write it."
        ) from error
    except ValueError as error:  # also bytes that are no text, and numbers of too many digits
        raise FileError(damaged(path, f"{what} is no JSON ({error})")) from error


_BYTES = (b",", b":", b"{", b"[")


def _newer(writer: object) -> bool:
    """Whether a version is above the one installed; unknown ones are not."""
    theirs, ours = _numbers(writer), _numbers(__version__)
    return theirs is not None and ours is not None and theirs > ours


def _numbers(written: object) -> tuple[int, ...] | None:
    found = re.match(r"\d{1,9}(\.\d{1,9})*", written) if isinstance(written, str) else None
    return None if found is None else tuple(map(int, found[0].split(".")))
