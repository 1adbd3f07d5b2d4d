"""Checkpoints on disk: the latest and the one before it, each whole or not there.

Rows of which a few change from one to the next, the replay of an autoencoder, are in a log beside
them that both stand on (see ``storage/logs.py``); all else is in the files themselves.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from torchkoopman.fitting.resuming import differing
from torchkoopman.observe.warned import warn
from torchkoopman.storage.logs import Logs, check_rows, read_rows
from torchkoopman.storage.rows import with_rows, without_rows
from torchkoopman.storage.whole import whole
from torchkoopman.storage.writers import only_writer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from contextlib import AbstractContextManager

FORMAT, WITHOUT_LOGS = 3, 2
"""Version of the files that are written, and the versions that can be read."""


class Checkpoints:
    """The files ``path`` and ``path.previous``, and any logs ``path.rows-…``.

    Args:
        path: of the latest; its folder is made if there is none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.previous = self.path.with_name(f"{self.path.name}.previous")
        self._logs = Logs(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def only_writer(self) -> AbstractContextManager[None]:
        """Keep other writers away.

        Raises:
            RuntimeError: there is one.
        """
        return only_writer(self.path)

    def write(self, run: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Put a checkpoint in the place of the latest, which becomes the previous one.

        Args:
            run: what must be the same for whoever goes on from it.
            state: tensors and plain types.

        Raises:
            OSError: there is no room, or no permission; those there are stay as they are.
        """
        plain, found = without_rows(dict(state))
        try:
            rows = [(keys, self._logs.append(repr(keys), each)) for keys, each in found]
            content = {"format": FORMAT, "run": dict(run), "state": plain, "rows": rows}
            with whole(self.path) as place:
                torch.save(content, place)
                if self.path.exists():
                    _link(self.path, self.previous)
        except (OSError, RuntimeError) as error:  # the latter is what torch says of a full disk
            raise OSError(
                f"the checkpoint {str(self.path)!r} could not be written ({error}). The one before "
                "it is kept: once there is room, the same call continues from there."
            ) from error
        self._clear({each["log"] for _, each in rows})

    def read(self, run: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The state of the latest checkpoint that is whole; None where there is none.

        Raises:
            ValueError: it is of another run or format, or all there are are damaged.
        """
        found, damaged = self.found(run)
        if not found:
            if damaged:
                raise ValueError(
                    f"{', '.join(damaged)}, so there is nothing to go on from. Remove it to begin "
                    "anew."
                )
            return None
        if damaged:
            warn(f"{damaged[0]}; the fit goes on from the checkpoint before it.")
        return self.taken(next(iter(found)))

    def found(self, run: Mapping[str, Any]) -> tuple[dict[Path, Mapping[str, Any]], list[str]]:
        """The states in the files that are whole, the latest first, and what is wrong with others.

        Tensors are still in the files: look at numbers alone, and take one with :meth:`taken`.

        Raises:
            ValueError: one is of another run or format, or something else than a file.
        """
        states: dict[Path, Mapping[str, Any]] = {}
        damaged = []
        for path in (self.path, self.previous):
            if not path.exists():
                continue
            if not path.is_file():
                raise ValueError(f"{str(path)!r} is no file. Give checkpoint= another path.")
            try:
                content = _read(path, mmap=True)
                for _, rows in content.get("rows", ()):
                    check_rows(path.parent, rows)
            except Exception as error:  # whatever a damaged file does
                damaged.append(f"{str(path)!r} is damaged ({error})")
                continue
            if content["format"] not in (FORMAT, WITHOUT_LOGS):
                raise ValueError(
                    f"{str(path)!r} is of format {content['format']!r}, and this torchkoopman "
                    f"reads formats {WITHOUT_LOGS} and {FORMAT}. Go on with the torchkoopman that "
                    "wrote it, or remove it."
                )
            if difference := differing(content["run"], run):
                raise ValueError(
                    f"the checkpoint {str(path)!r} is of another fit: it has {difference} in this "
                    "one. Call fit() as it was called then, or give another path."
                )
            states[path] = content["state"]
        return states, damaged

    def taken(self, path: Path) -> Mapping[str, Any]:
        """The state in one of the two files, which is the latest from now on."""
        content = _read(path, mmap=False)
        state: Mapping[str, Any] = content["state"]
        for keys, rows in content.get("rows", ()):
            with_rows(state, keys, read_rows(path.parent, rows))
        if path != self.path:  # else the next one written would put the other in its place
            _link(path, self.path)
        self._clear()
        return state

    def _clear(self, latest: Collection[str] = ()) -> None:
        """Remove the logs that neither file stands on: of earlier ones, and of killed writers.

        Args:
            latest: those of the latest file, as far as they are known.
        """
        if all(log.name in latest for log in self._logs.files()):
            return
        with contextlib.suppress(Exception):  # where a file is damaged nothing is removed
            files = [path for path in (self.path, self.previous) if path.exists()]
            contents = [torch.load(path, weights_only=True, mmap=True) for path in files]
            named = [rows for content in contents for _, rows in content.get("rows", ())]
            self._logs.remove({rows["log"] for rows in named})


def _link(path: Path, place: Path) -> None:
    """Let a file have a second name, whatever had that before: there is one at any moment."""
    beside = place.with_name(f".{place.name}.part")
    beside.unlink(missing_ok=True)
    try:
        os.link(path, beside)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, beside)
    os.replace(beside, place)
    beside.unlink(missing_ok=True)  # there still if both were names of one file


def _read(path: Path, *, mmap: bool) -> Mapping[str, Any]:
    """A checkpoint, if all its bytes are those that were written.

    Args:
        path: of the file.
        mmap: leave tensors in the file, which must not be replaced meanwhile.

    Raises:
        ValueError: they are not.
    """
    with zipfile.ZipFile(path) as archive:
        if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
            raise ValueError("its parts are compressed, which torch does not do")
        if (bad := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {bad!r} is wrong")
    content = torch.load(path, weights_only=True, mmap=mmap)
    if not (isinstance(content, dict) and {"format", "run", "state"} <= set(content)):
        raise ValueError("it is not a checkpoint of a fit")
    return content
