"""Checkpoints on disk: the latest and the one before it, each whole or not there."""

from __future__ import annotations

import os
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from torchkoopman.fitting.resuming import differing
from torchkoopman.storage.whole import whole

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 1
"""Of the files that are written; one of another format is refused."""


class Checkpoints:
    """The files ``path`` and ``path.previous``.

    Args:
        path: of the latest; its folder is made if there is none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.previous = self.path.with_name(f"{self.path.name}.previous")
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, run: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Put a checkpoint in the place of the latest, which becomes the previous one.

        Args:
            run: what must be the same for whoever goes on from it.
            state: tensors and plain types.
        """
        with whole(self.path) as place:
            torch.save({"format": FORMAT, "run": dict(run), "state": dict(state)}, place)
            if self.path.exists():
                self._keep()

    def read(self, run: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The state of the latest checkpoint that is whole; None where there is none.

        Raises:
            ValueError: it is of another run or format, or all there are are damaged.
        """
        found, damaged = None, []
        for path in (self.path, self.previous):
            if path.exists():
                try:
                    found = _read(path)
                    break
                except Exception as error:  # whatever a damaged file does
                    damaged.append(f"{str(path)!r} is damaged ({error})")
        if found is None:
            if damaged:
                raise ValueError(
                    f"{', '.join(damaged)}, so there is nothing to go on from. Remove it to begin "
                    "anew."
                )
            return None
        if found["format"] != FORMAT:
            raise ValueError(
                f"{str(self.path)!r} is of format {found['format']!r}, and this torchkoopman reads "
                f"format {FORMAT}. Go on with the torchkoopman that wrote it, or remove it."
            )
        if difference := differing(found["run"], run):
            raise ValueError(
                f"the checkpoint {str(self.path)!r} is of another fit: it has {difference} in "
                "this one. Call fit() as it was called then, or give another path."
            )
        if damaged:
            warnings.warn(
                f"{damaged[0]}; the fit goes on from the checkpoint before it.",
                RuntimeWarning,
                stacklevel=4,
            )
        state: Mapping[str, Any] = found["state"]
        return state

    def _keep(self) -> None:
        """Let the latest be the previous one too, so that there is one at any moment."""
        beside = self.path.with_name(f".{self.previous.name}.part")
        beside.unlink(missing_ok=True)
        try:
            os.link(self.path, beside)
        except OSError:  # a file system without hard links
            shutil.copyfile(self.path, beside)
        os.replace(beside, self.previous)
        beside.unlink(missing_ok=True)  # there still if both were names of one file


def _read(path: Path) -> Mapping[str, Any]:
    """A checkpoint, if all its bytes are those that were written.

    Raises:
        ValueError: they are not.
    """
    with zipfile.ZipFile(path) as archive:
        if (bad := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {bad!r} is wrong")
    # Copied to memory that nothing else writes to: the file is replaced while the fit goes on.
    content: Mapping[str, Any] = torch.load(path, weights_only=True, mmap=False)
    if not {"format", "run", "state"} <= set(content):
        raise ValueError("it is no checkpoint of a fit")
    return content
