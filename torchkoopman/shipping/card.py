"""Cards: every exported file says in JSON what was fitted, swapped and forgotten in its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from torchkoopman.koopman.files import described_surrogate
from torchkoopman.koopman.structure import card_of_config
from torchkoopman.storage.archives import text_in_archive
from torchkoopman.storage.errors import FileError, require_file, understood
from torchkoopman.storage.formats import FORMAT, UNNUMBERED, check_writer, parsed
from torchkoopman.storage.onnx_files import text_in_onnx
from torchkoopman.storage.tensor_files import NUMBER, TORCH, WRITER
from torchkoopman.surgery.history import as_json, swap_history
from torchkoopman.version import __version__

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
        "version": __version__,
        "torch": torch.__version__,
        "format": FORMAT,
        "swaps": [as_json(vars(record)) for record in swap_history(model)],
    }


def read_card(path: str | Path) -> dict[str, Any]:
    """The card of a file that :func:`export` or :meth:`Surrogate.save` wrote: what is in it.

    Nothing in the file is run, unpickled or unpacked. The file's checksum is compared, so a card
    that is returned belongs to a file in which no bit has changed; files of the first format have
    no checksum.

    Example:
        >>> path = tk.export(tk.swap(model, surrogate), "edited.safetensors")
        >>> card = tk.read_card(path)
        >>> card["model"], [(swap["start"], swap["end"]) for swap in card["swaps"]]
        ('Sequential', [('1', '9')])

    Args:
        path: a ``.pt2``, ``.onnx`` or ``.safetensors`` file.

    Returns:
        ``"model"``, the class that was exported; ``"version"`` of this package and ``"torch"``;
        ``"format"`` of the file; ``"swaps"``, what was put in place of which layers, what it was
        fitted on, and what it was made to forget: one dictionary for each swap, none for a model
        as it was trained. Of a surrogate's own file also ``"surrogate"``, such a description.

    Raises:
        FileError: a ``ValueError``: no such file, not one of these formats, damaged, without a
            card, or of a format that this version does not know.
    """
    path = Path(path)
    card = card_in(path)
    if "format" not in card:
        check_writer(path, card["version"])
    return card


def card_in(path: Path) -> dict[str, Any]:
    """The card in a file, of whichever version; for the rest see :func:`read_card`."""
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"read_card() reads {', '.join(SUFFIXES)}; {str(path)!r} ends in {path.suffix!r}."
        )
    require_file(path)
    text: str | bytes | None
    if path.suffix == ".safetensors":
        config, metadata = described_surrogate(path)
        if config is not None:
            return _of_surrogate(path, config, metadata)
        text = metadata.get(CARD)
    else:
        onnx = path.suffix == ".onnx"
        text = text_in_onnx(path, CARD) if onnx else text_in_archive(path, CARD_FILE)
    return card_from(path, text)


def card_from(path: Path, text: str | bytes | None) -> dict[str, Any]:
    """The card that a text is.

    Raises:
        FileError: there is none, or it is no card.
    """
    if text is None:
        raise FileError(
            f"{str(path)!r} has no {CARD!r} card: torchkoopman's export() did not write it."
        )
    card = parsed(path, text, "its card")
    known = isinstance(card, dict) and isinstance(card.get("version"), str)
    if not (known and isinstance(card.get("swaps"), list)):
        raise FileError(f"{str(path)!r}: its card does not say which version made which swaps.")
    return card  # type: ignore[no-any-return]


def card_text(card: dict[str, Any]) -> str:
    """A card as files hold it."""
    return json.dumps(card)


def _of_surrogate(path: Path, config: dict[str, Any], metadata: dict[str, str]) -> dict[str, Any]:
    """The card of a surrogate's own file, which holds its whole description."""
    with understood(path, "the surrogate's description"):
        surrogate = card_of_config(config)
    return {
        "model": "Surrogate",
        "version": metadata.get(WRITER, "unknown"),
        "torch": metadata.get(TORCH, "unknown"),
        "format": int(metadata.get(NUMBER, UNNUMBERED)),
        "swaps": [],
        "surrogate": surrogate,
    }
