"""Cards: every exported file says in JSON what was fitted, swapped and forgotten in its model."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from torchkoopman.surgery.history import as_json, swaps, version

if TYPE_CHECKING:
    from torch import nn

CARD = "torchkoopman"
"""Key of the card in the metadata of a safetensors or an ONNX file."""
CARD_FILE = "torchkoopman.json"
"""Name of the card among the extra files of a torch.export archive."""
SUFFIXES = {
    ".pt2": "a torch.export program",
    ".onnx": "an ONNX program",
    ".safetensors": "weights and what was swapped",
}
"""Suffix → what such a file holds."""


def card_of(model: nn.Module) -> dict[str, Any]:
    """What a file says of a model: JSON-able.

    ``"swaps"`` has one entry for each swap, with the fields of :class:`SwapRecord`: in its
    ``"card"`` the method of the fit, its ``"rows"`` and errors, and as ``"edits"`` the classes
    that were forgotten.
    """
    return {
        "model": type(model).__name__,
        "version": version(),
        "torch": torch.__version__,
        "swaps": [as_json(vars(record)) for record in swaps(model)],
    }


def read_card(path: str | Path) -> dict[str, Any]:
    """The card of a file that ``export`` wrote; nothing in the file is run or unpickled.

    Args:
        path: a ``.pt2``, ``.onnx`` or ``.safetensors`` file.

    Returns:
        ``"model"``, the class that was exported; ``"version"`` of this package and ``"torch"``;
        ``"swaps"``, what was put in place of which layers, what it was fitted on, and what it was
        made to forget: one dictionary for each swap, none for a model as it was trained.

    Raises:
        ValueError: no such file, not one of these formats, or a file without a card.
        ImportError: the file is ``.onnx``, and the package onnx is not installed.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"read_card() reads {', '.join(SUFFIXES)}; {str(path)!r} ends in {path.suffix!r}."
        )
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}.")
    readers = {".pt2": _in_archive, ".onnx": _in_onnx, ".safetensors": _in_safetensors}
    text = readers[path.suffix](path)
    if text is None:
        raise ValueError(
            f"{str(path)!r} has no {CARD!r} card: torchkoopman's export() did not write it. A "
            "surrogate that save_surrogate() wrote is read by load_surrogate()."
        )
    card: dict[str, Any] = json.loads(text)
    return card


def _in_archive(path: Path) -> str | None:
    """An archive is a zip file with one folder at its root, whose name varies."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(f"/extra/{CARD_FILE}")]
            return archive.read(names[0]).decode() if names else None
    except zipfile.BadZipFile as error:
        raise ValueError(f"{str(path)!r} is not an archive of torch.export ({error}).") from error


def _in_onnx(path: Path) -> str | None:
    """Among the metadata of the model."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            f"reading {str(path)!r} needs the package onnx: pip install 'torchkoopman[onnx]'."
        ) from error
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, whose module is not public
        raise ValueError(f"{str(path)!r} is not an ONNX file ({error}).") from error
    return next((entry.value for entry in model.metadata_props if entry.key == CARD), None)


def _in_safetensors(path: Path) -> str | None:
    """In the header."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get(CARD)
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} is not a safetensors file ({error}).") from error
