"""Export: an edited model leaves the house as a file that needs nothing of it.

``.pt2`` holds the program and its weights, ready to run. ``.safetensors`` holds the weights and a
card of what was swapped; :func:`load` puts them back into the original architecture. Neither holds
pickled code.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.surgery.record import RECORDS, SwapRecord, swaps, tensors, version
from torchkoopman.surgery.swap import swap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.observe.trajectory import InputSpec

TOLERANCE = 1e-5
"""Largest relative difference between a program and its model: float32 rounding of a reordered sum
stays an order of magnitude below."""

CARD = "torchkoopman"
"""Key of the card in a safetensors file's metadata."""


def export(
    model: nn.Module,
    path: str | Path,
    example_inputs: Tensor | Sequence[Tensor] | None = None,
    dynamic_batch: bool = True,
) -> Path:
    """Write a model, swapped or not, to a file; the suffix says how.

    Args:
        model: it is exported in eval mode and not changed.
        path: ``.pt2``: a ``torch.export`` program, which ``torch.export.load(path).module()`` runs
            without this package. ``.safetensors``: the state_dict, with what was swapped as JSON in
            the metadata; read it with :func:`load`, or the tensors alone with safetensors.
        example_inputs: the model's positional tensors, or its one tensor, for ``.pt2``. By default
            made from the shapes and dtypes that a surrogate saw when it was fitted.
        dynamic_batch: whether a program takes any batch size: the first axis of every input, which
            must then have one size. A batch of one is doubled, since a program would fix it.

    Returns:
        The path.

    Raises:
        ValueError: unknown suffix, no example inputs, or examples whose batch sizes differ.
        RuntimeError: ``torch.export`` fails, or the program does not agree with the model.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        card = {"version": version(), "swaps": [vars(record) for record in swaps(model)]}
        save_model(model, str(path), metadata={"format": "pt", CARD: json.dumps(card)})
    elif path.suffix == ".pt2":
        _export_program(copy.deepcopy(model).eval(), path, example_inputs, dynamic_batch)
    else:
        raise ValueError(
            f"export() does not know the suffix {path.suffix!r} of {str(path)!r}; it writes '.pt2' "
            "(a program) and '.safetensors' (weights and what was swapped)."
        )
    return path


def load(model: nn.Module, path: str | Path) -> nn.Module:
    """An edited model from a ``.safetensors`` file and the original architecture.

    The swaps recorded in the file are done again with modules of the recorded structure, then all
    tensors are read strictly. ``swap_back`` is not possible afterwards: the file does not have the
    layers that were replaced.

    Args:
        model: the original model, before any swap, with any weights; it is not changed.
        path: a file that :func:`export` wrote.

    Raises:
        ValueError: not such a file, or one in which a plain module was swapped in, whose structure
            the file does not know.
        RuntimeError: the tensors do not fit the architecture.
    """
    records = _read_card(Path(path))
    edited = copy.deepcopy(model)
    for record in records:
        if record.config is None:
            raise ValueError(
                f"{path}: the {record.surrogate} at {record.module!r} is a module of your own, and "
                "the file holds its tensors but no code. Swap it into the original model with "
                f"swap(model, module, start={record.start!r}, end={record.end!r}), and read the "
                "file into the result with safetensors.torch.load_model."
            )
        edited = swap(edited, Surrogate.from_config(record.config), record.start, record.end)
    load_model(edited, str(path))
    return _as_read(edited, records)


def _as_read(edited: nn.Module, records: tuple[SwapRecord, ...]) -> nn.Module:
    """The records of the file instead of those of the rebuilding, and no way back."""
    if records:
        meta: Any = edited.meta
        meta.clear()
        meta[RECORDS] = records
    return edited


def _read_card(path: Path) -> tuple[SwapRecord, ...]:
    """The swaps recorded in a file."""
    if not path.is_file():
        raise ValueError(f"load() found no file {str(path)!r}.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{str(path)!r} is not a safetensors file ({error}). Programs ('.pt2') are read with "
            "torch.export.load."
        ) from error
    if CARD not in metadata:
        raise ValueError(
            f"{str(path)!r} has no {CARD!r} card in its metadata: export() did not write it. Read "
            "plain weights with safetensors.torch.load_model."
        )
    entries = json.loads(metadata[CARD])["swaps"]
    return tuple(SwapRecord(**{**entry, "inputs": _specs(entry["inputs"])}) for entry in entries)


def _specs(read: list[Any]) -> tuple[InputSpec, ...]:
    return tuple((tuple(shape), dtype) for shape, dtype in read)


def _export_program(
    model: nn.Module,
    path: Path,
    example_inputs: Tensor | Sequence[Tensor] | None,
    dynamic_batch: bool,
) -> None:
    """Export, check on another batch size, save."""
    examples = _examples(model, example_inputs)
    shapes: tuple[dict[int, Any] | None, ...] = tuple(None for _ in examples)
    if dynamic_batch:
        examples = _batched(examples)
        batch = torch.export.Dim("batch")
        shapes = tuple({0: batch} if example.ndim else None for example in examples)
    try:
        program = torch.export.export(model, examples, dynamic_shapes=shapes)
    except Exception as error:  # torch.export has many error classes and runs the user's code
        first = (str(error).splitlines() or [""])[0]
        raise RuntimeError(
            f"torch.export cannot export this {type(model).__name__}: {type(error).__name__}: "
            f"{first} If it is about the batch size, give dynamic_batch=False."
        ) from error
    other = _longer(examples) if dynamic_batch else examples
    with torch.no_grad():
        gap = _difference(program.module()(*_copies(other)), model(*_copies(other)))
    if not gap <= TOLERANCE:
        raise RuntimeError(
            f"the exported program differs from the model by {gap:.1e} of the largest output on "
            f"inputs of shape {[tuple(example.shape) for example in other]}, more than {TOLERANCE}:"
            " its forward may be random in eval mode, keep a state, or depend on the batch size."
        )
    torch.export.save(program, path)


def _examples(
    model: nn.Module, example_inputs: Tensor | Sequence[Tensor] | None
) -> tuple[Tensor, ...]:
    """Copies of the examples given, else made from the inputs that a surrogate has seen."""
    if isinstance(example_inputs, Tensor):
        return _copies((example_inputs,))
    if example_inputs is not None:
        return _copies(tuple(example_inputs))
    inputs = next((record.inputs for record in swaps(model) if record.inputs), ())
    if not inputs:
        raise ValueError(
            "export() to '.pt2' needs an example of the model's inputs, and no swap in this model "
            "recorded their shapes: pass example_inputs=(tensor, …)."
        )
    device = next((tensor.device for tensor in tensors(model).values()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    return tuple(_made(spec, generator).to(device) for spec in inputs)


def _made(spec: InputSpec, generator: torch.Generator) -> Tensor:
    """Normal numbers, or zeros where the input is of whole numbers: an index that always exists."""
    shape, name = spec
    dtype: torch.dtype = getattr(torch, name)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, dtype=dtype, generator=generator)
    return torch.zeros(shape, dtype=dtype)


def _batched(examples: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The examples with a batch of at least two."""
    sizes = {example.shape[0] for example in examples if example.ndim}
    if len(sizes) > 1:
        raise ValueError(
            f"the examples have shapes {[tuple(example.shape) for example in examples]}, whose "
            "first axes differ, so they have no batch axis in common; give dynamic_batch=False."
        )
    return examples if sizes != {1} else _longer(examples)


def _longer(examples: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The examples with the first sample once more at the end."""
    return tuple(torch.cat([x, x[:1]]) if x.ndim else x for x in examples)


def _copies(examples: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(example.detach().clone() for example in examples)


def _difference(found: Any, expected: Any) -> float:
    """Largest difference over all output tensors, relative to the largest value of its tensor."""
    pairs = zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True)
    differences = [
        ((value - other).abs().max() / other.abs().max().clamp_min(1e-30)).item()
        for value, other in (
            (v.to(torch.cdouble), o.to(torch.cdouble)) for v, o in pairs if isinstance(v, Tensor)
        )
        if other.numel()
    ]
    return max(differences, default=0.0)
