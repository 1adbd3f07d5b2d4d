"""Files of weights: an edited model's tensors with its card, and the way back into a model."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchkoopman.koopman.files import is_surrogate
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.shipping.card import CARD, card_from, card_text
from torchkoopman.shipping.layers import check_layers, layers_of
from torchkoopman.shipping.programs import seen_inputs
from torchkoopman.shipping.recorded import Recorded, record_of
from torchkoopman.shipping.tensors import fill, written_once
from torchkoopman.storage.errors import FileError, MisfitFileError, understood
from torchkoopman.storage.formats import check_writer, parsed
from torchkoopman.storage.tensor_files import read_tensors, save_tensors, seal_tensors, unsealed
from torchkoopman.surgery.history import ORIGINAL, RECORDS, memory
from torchkoopman.surgery.swap import swap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from torchkoopman.observe.example import ExampleInputs
    from torchkoopman.surgery.history import SwapRecord

_LAYERS = "torchkoopman.layers"
"""Key of what the tensors do not say of the model."""


def save_weights(model: nn.Module, path: Path, card: dict[str, Any]) -> None:
    """Write a state_dict, with the card in its metadata; tied tensors are written once."""
    tensors, tied = written_once(model.state_dict())
    texts = {"format": "pt", CARD: card_text(card), _LAYERS: json.dumps(layers_of(model))}
    save_tensors(tensors, path, unsealed({**tied, **texts}))
    seal_tensors(path)


def load(
    model: nn.Module, path: str | Path, example_inputs: ExampleInputs | None = None
) -> nn.Module:
    """An edited model from a ``.safetensors`` file and the original architecture.

    The swaps recorded in the file are done again in the same way, with modules of the recorded
    structure; then all tensors are read, strictly, in the precision in which they were written.
    :func:`undo` is not possible afterwards: the file does not have the layers that were replaced.
    The classes of the innermost modules are compared too, since a ReLU could load the weights of a
    Tanh; functions that a forward calls without a module are compared in graphs only.

    Example:
        >>> path = tk.export(tk.swap(model, surrogate), "edited.safetensors")
        >>> edited = tk.load(model, path)
        >>> edited(test.inputs[:8]).shape
        torch.Size([8, 3])

    Args:
        model: the original model, before any swap, with any weights; it is not changed.
        path: a file that :func:`export` wrote.
        example_inputs: the model's inputs, for swaps by export or eager; by default made from the
            shapes and dtypes that the surrogate saw, if it was fitted with positional arguments.

    Raises:
        FileError: a ``ValueError``: the file is not there (also a ``FileNotFoundError``), is
            damaged, holds no weights, is of a format that this version does not know, or one in
            which a plain module was swapped in, whose structure the file does not know. Also a
            ``RuntimeError`` where the file does not fit the architecture.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(
            f"load() reads '.safetensors'; {str(path)!r} ends in {path.suffix!r}. Programs need no "
            "model: torch.export.load(path).module() runs '.pt2', onnxruntime runs '.onnx'."
        )
    metadata, tensors = read_tensors(path)
    records = _records(path, metadata)
    edited = copy.deepcopy(model)
    for record in records:
        edited = _again(edited, record, path, tensors, example_inputs)
    fill(edited, tensors, path)
    if _LAYERS in metadata:
        said = parsed(path, metadata[_LAYERS], "the list of its layers")
        with understood(path, "the list of its layers"):
            check_layers(path, said, edited)
    return _as_read(edited, records)


def _again(
    model: nn.Module,
    record: SwapRecord,
    path: Path,
    tensors: Mapping[str, Tensor],
    example_inputs: ExampleInputs | None,
) -> nn.Module:
    """A recorded swap, done in another model."""
    if record.config is None:
        raise FileError(
            f"{path}: the {record.surrogate} at {record.module!r} is a module of your own, and "
            "the file holds its tensors but no code. Swap it into the original model with "
            f"swap(model, module, start={record.start!r}, end={record.end!r}), and read the "
            "file into the result with safetensors.torch.load_model."
        )
    with understood(path, "the surrogate's description"):
        recorded = Recorded.of(record, Surrogate.from_config, tensors)
    if example_inputs is None and record.how != "fx":
        example_inputs = seen_inputs(model, recorded.inputs).args
    try:
        return swap(
            model,
            recorded,
            record.start,
            record.end,
            record.how,
            example_inputs,
            side_inputs=record.side_inputs,
            keep_escapes=record.keep_escapes,
        )
    except (ValueError, RuntimeError) as error:  # in the model that was exported it was possible
        raise MisfitFileError(
            f"{str(path)!r} records a swap from {record.start!r} to {record.end!r}, which cannot "
            f"be done in this {type(model).__name__}: {error} Give load() the architecture that "
            "the file was written with, before any swap."
        ) from error


def _as_read(edited: nn.Module, records: tuple[SwapRecord, ...]) -> nn.Module:
    """The records of the file instead of those of the rebuilding, and no way back."""
    if records:
        held = memory(edited)
        held[RECORDS] = records
        held.pop(ORIGINAL, None)
    return edited


def _records(path: Path, metadata: dict[str, str]) -> tuple[SwapRecord, ...]:
    """The swaps recorded in a file."""
    if CARD not in metadata and is_surrogate(metadata):
        raise FileError(
            f"{str(path)!r} holds a surrogate, no model: read it with Surrogate.load(path), and "
            "swap it into a model."
        )
    card = card_from(path, metadata.get(CARD))
    try:
        records = tuple(record_of(entry) for entry in card["swaps"])
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise FileError(
            f"{str(path)!r} was written by torchkoopman {card['version']}, whose records differ "
            f"from this version's ({error}); read it with that version."
        ) from error
    if "format" not in card:
        check_writer(path, card["version"])
    return records
