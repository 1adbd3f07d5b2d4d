"""Export: an edited model becomes a file that runs without this package.

``.pt2`` and ``.onnx`` hold the program and its weights, ready to run. ``.safetensors`` holds the
weights; :func:`load` puts them back into the original architecture. All carry a card of what was
swapped, which :func:`read_card` reads. None holds pickled code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from torchkoopman.shipping.card import SUFFIXES, card_of, read_card
from torchkoopman.shipping.files import load, save_weights
from torchkoopman.shipping.onnx_programs import check_installed, save_onnx
from torchkoopman.shipping.programs import capture, save_program
from torchkoopman.storage.whole import whole

if TYPE_CHECKING:
    from torchkoopman.observe.example import ExampleInputs
    from torchkoopman.shipping.axes import Axes

__all__ = ["export", "load", "read_card"]


def export(
    model: nn.Module,
    path: str | Path,
    example_inputs: ExampleInputs | None = None,
    dynamic_batch: bool = True,
    dynamic_axes: Axes | None = None,
) -> Path:
    """Write a model, swapped or not, to a file; the suffix says in which format.

    A program is captured in eval mode, written, read again, and compared with the model on inputs
    of other sizes before the file gets its name. It returns the model's output in tuples, lists
    and dictionaries: a ``ModelOutput`` or dataclass becomes a dictionary.

    Example:
        >>> edited = tk.swap(model, surrogate)
        >>> path = tk.export(edited, "edited.safetensors")  # or .pt2 or .onnx, which hold programs
        >>> again = tk.load(model, path)
        >>> torch.equal(again(test.inputs), edited(test.inputs))
        True

    Args:
        model: any module; it is not changed.
        path: ``.pt2``: a ``torch.export`` program, which ``torch.export.load(path).module()`` runs
            without this package. ``.onnx``: the same for onnxruntime and others. Inputs are called
            as in the model's forward, outputs by their keys or indices, or ``"output"``.
            ``.safetensors``: the state_dict; read it with :func:`load`, or the tensors alone with
            safetensors.
        example_inputs: for a program: the model's one tensor, its positional arguments, or a
            dictionary of its keyword arguments; a ``.pt2`` is then called by position or by name in
            the same way. Keyword arguments without tensors become part of the program. By default
            they are made from the shapes and dtypes that a surrogate saw when it was fitted. The
            values are not in the file.
        dynamic_batch: whether a program takes any batch size: the first axis of every input, which
            must have the same size in all. Batches of one are doubled, since a program would fix
            the one.
        dynamic_axes: further axes of any size, by name: ``{"tokens": 1}`` is axis 1 of every input
            that has one; ``{"tokens": {"input_ids": 1}}`` that of one input. Limits that the model
            has, such as its number of positions, stay in force in a ``.pt2``.

    Returns:
        The path.

    Raises:
        TypeError: no module, or an output that a program cannot return.
        ValueError: unknown suffix, no example inputs, or inputs or axes that do not fit the model.
        FileNotFoundError: the folder does not exist.
        OSError: the disk is full, or fails; a file that was there is as it was.
        ImportError: ONNX is not installed.
        RuntimeError: the model fails on the inputs, cannot be exported, or the file's program does
            not agree with it.
    """
    path = Path(path)
    _check(model, path)
    model = getattr(model, "_orig_mod", model)  # what torch.compile was given
    card = card_of(model)
    with whole(path) as unfinished:
        if path.suffix == ".safetensors":
            save_weights(model, unfinished, card)
        else:
            program = capture(model, example_inputs, dynamic_batch, dynamic_axes)
            save = save_onnx if path.suffix == ".onnx" else save_program
            save(program, unfinished, card)
    return path


def _check(model: nn.Module, path: Path) -> None:
    """See that there is something to write and somewhere to write it."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"export() writes an nn.Module; it got a {type(model).__name__}.")
    if path.suffix not in SUFFIXES:
        known = ", ".join(f"{suffix!r} ({holds})" for suffix, holds in SUFFIXES.items())
        raise ValueError(
            f"export() does not know the suffix {path.suffix!r} of {str(path)!r}; it writes "
            f"{known}."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"export() found no folder {str(path.parent)!r}; make it first.")
    if path.suffix == ".onnx":
        check_installed()
