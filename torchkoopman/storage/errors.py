"""What a file can be at fault for: one family, all of them ``ValueError``."""

from __future__ import annotations

import contextlib
from textwrap import shorten
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class FileError(ValueError):
    """A file that cannot be read: not there, damaged, of another format or of another version.

    It is a ``ValueError``; where there is no such file also a ``FileNotFoundError``, and where the
    file belongs to another model also a ``RuntimeError``.

    Example:
        >>> tk.Surrogate.load("nowhere.safetensors")
        Traceback (most recent call last):
            ...
        torchkoopman.storage.errors.MissingFileError: there is no file 'nowhere.safetensors'.
    """


class MissingFileError(FileError, FileNotFoundError):
    """There is no such file."""


class MisfitFileError(FileError, RuntimeError):
    """A file that is whole, but of another model than the one it is read into."""


@contextlib.contextmanager
def understood(path: Path, what: str) -> Iterator[None]:
    """Whatever a description leads to while it is understood is an error of the file.

    Args:
        path: the file.
        what: that is understood, for the message.

    Raises:
        FileError: in place of any other error.
    """
    try:
        yield
    except FileError:
        raise
    except Exception as error:  # a description can be wrong in as many ways as there are errors
        missing = isinstance(error, KeyError | AttributeError | TypeError | IndexError)
        said = shorten(f"{type(error).__name__}: {error}" if missing else str(error), 400)
        raise FileError(
            f"{str(path)!r}: {what} cannot be understood ({said}). Write the file again, or read "
            "it with the version of torchkoopman that wrote it."
        ) from error


def require_file(path: Path) -> Path:
    """The path, if a file is there.

    Raises:
        MissingFileError: none is.
    """
    if not path.is_file():
        raise MissingFileError(f"there is no file {str(path)!r}.")
    return path
