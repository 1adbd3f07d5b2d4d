"""Files of weights: an edited model's tensors with its card, and the way back into a model."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_model, save_model

from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.shipping.card import CARD, read_card
from torchkoopman.shipping.programs import seen_inputs
from torchkoopman.surgery.history import ORIGINAL, RECORDS, SwapRecord, memory
from torchkoopman.surgery.swap import swap

if TYPE_CHECKING:
    from torch import nn

    from torchkoopman.observe.example import ExampleInputs


def save_weights(model: nn.Module, path: Path, card: dict[str, Any]) -> None:
    """Write a state_dict, with the card in its metadata; tied tensors are written once."""
    save_model(model, str(path), metadata={"format": "pt", CARD: json.dumps(card)})


def load(
    model: nn.Module, path: str | Path, example_inputs: ExampleInputs | None = None
) -> nn.Module:
    """An edited model from a ``.safetensors`` file and the original architecture.

    The swaps recorded in the file are done again, the same way, with modules of the recorded
    structure; then all tensors are read strictly. ``swap_back`` is not possible afterwards: the
    file does not have the layers that were replaced.

    Args:
        model: the original model, before any swap, with any weights; it is not changed.
        path: a file that :func:`export` wrote.
        example_inputs: the model's inputs, for swaps by export or eager; by default made from the
            shapes and dtypes that the surrogate saw, if it was fitted with positional arguments.

    Raises:
        ValueError: not such a file, or one in which a plain module was swapped in, whose structure
            the file does not know, or a surrogate written before layers had views.
        RuntimeError: the tensors do not fit the architecture.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(
            f"load() reads '.safetensors'; {str(path)!r} ends in {path.suffix!r}. Programs need no "
            "model: torch.export.load(path).module() runs '.pt2', onnxruntime runs '.onnx'."
        )
    records = _records(path)
    edited = copy.deepcopy(model)
    for record in records:
        if record.config is None:
            raise ValueError(
                f"{path}: the {record.surrogate} at {record.module!r} is a module of your own, and "
                "the file holds its tensors but no code. Swap it into the original model with "
                f"swap(model, module, start={record.start!r}, end={record.end!r}), and read the "
                "file into the result with safetensors.torch.load_model."
            )
        try:
            surrogate = Surrogate.from_config(record.config)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        inputs = example_inputs
        if inputs is None and record.how != "fx":
            inputs = seen_inputs(edited, record.inputs).args
        edited = swap(
            edited,
            surrogate,
            record.start,
            record.end,
            record.how,
            inputs,
            side_inputs=record.side_inputs,
            keep_escapes=record.keep_escapes,
        )
    load_model(edited, str(path))
    return _as_read(edited, records)


def _as_read(edited: nn.Module, records: tuple[SwapRecord, ...]) -> nn.Module:
    """The records of the file instead of those of the rebuilding, and no way back."""
    if records:
        held = memory(edited)
        held[RECORDS] = records
        held.pop(ORIGINAL, None)
    return edited


def _records(path: Path) -> tuple[SwapRecord, ...]:
    """The swaps recorded in a file."""
    card = read_card(path)
    try:
        return tuple(SwapRecord(**_as_written(entry)) for entry in card["swaps"])
    except TypeError as error:
        raise ValueError(
            f"{str(path)!r} was written by torchkoopman {card['version']}, whose records differ "
            f"from this version's ({error}); read it with that version."
        ) from error


def _as_written(entry: dict[str, Any]) -> dict[str, Any]:
    """A record's fields with the tuples that JSON made lists of."""
    fields = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
    }
    inputs = tuple((tuple(shape), dtype) for shape, dtype in entry["inputs"])
    return {**fields, "inputs": inputs}
