"""Programs: a model as ``torch.export`` sees it, for files that run without the model's code."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import io
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from torchkoopman.observe.example import Example
from torchkoopman.observe.interrupts import uninterrupted
from torchkoopman.observe.places import leaves, spelled
from torchkoopman.shipping.alone import check_alone
from torchkoopman.shipping.axes import (
    argument_names,
    by_argument,
    free_axes,
    named_parameters,
    without_ones,
)
from torchkoopman.shipping.card import CARD_FILE, card_text
from torchkoopman.shipping.parity import Trials, in_short, plain, values, way_out
from torchkoopman.storage.archives import Sink, seal_archive
from torchkoopman.surgery.history import swap_history, tensors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torchkoopman.observe.example import ExampleInputs
    from torchkoopman.observe.trajectory import InputSpec
    from torchkoopman.shipping.axes import Axes, FreeAxis

VIOLATED = "Constraints violated"
"""What torch.export says where a size is not as free as it was said to be."""
CONSTANTS = (Tensor, int, float, str, type(None))
"""What a program can return; a bool is an int."""
NO_CACHE = " Without its cache a transformer does: model.config.use_cache = False."


@dataclass(frozen=True)
class Program:
    """A captured model with all that its files need."""

    exported: torch.export.ExportedProgram
    model: nn.Module
    """A copy in eval mode whose output is plain."""
    axes: tuple[FreeAxis, ...]
    """The sizes left open."""
    example: Example
    """What it was captured with."""
    trials: Trials
    """What a file must return."""


def capture(
    model: nn.Module,
    given: ExampleInputs | Example | None,
    dynamic_batch: bool,
    dynamic_axes: Axes | None,
) -> Program:
    """The program of a model in eval mode; see :func:`torchkoopman.export` for the arguments.

    Raises:
        TypeError: the output holds something that is neither a tensor nor a constant.
        ValueError: no example inputs, or inputs and axes that do not fit the model.
        RuntimeError: the model fails on the inputs, or ``torch.export`` on the model.
    """
    if given is None:
        given = seen_inputs(model, next((r.inputs for r in swap_history(model) if r.inputs), ()))
    names = argument_names(model, Example.of(given))
    example, constants = _tensors_only(Example.of(given))
    axes = free_axes(example, names, dynamic_batch, dynamic_axes)
    example = without_ones(example, axes)
    copied = _prepared(model, example, constants)
    try:
        output = example.run(copied)
    except Exception as error:  # runs the user's code
        raise RuntimeError(
            f"{type(model).__name__} fails on the example inputs: {in_short(error)}"
        ) from error
    check_output(output, CONSTANTS, "a program")
    trials = Trials.of(copied, example, axes)
    exported = _exported(copied, example, axes)
    return Program(exported, copied, axes, example, trials)


def save_program(program: Program, path: Path, card: dict[str, Any]) -> None:
    """Write a program as an archive of torch.export, read it, and hold it against the model.

    Raises:
        RuntimeError: what was read does not agree with the model.
    """
    zeros = pytree.tree_map_only(Tensor, torch.zeros_like, program.exported.example_inputs)
    program.exported.example_inputs = zeros  # the file needs their shapes, and nobody's data
    sink: Any = Sink(path)
    with uninterrupted(), sink:
        torch.export.save(program.exported, sink, extra_files={CARD_FILE: card_text(card)})
    seal_archive(path)
    check_alone(path)
    read = torch.export.load(path).module()

    def run(example: Example) -> list[Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.rand(1)  # a random program must not agree because its model had the same state
            return values(example.run(read))

    program.trials.check(run)


def check_output(output: Any, kinds: tuple[type, ...], what: str) -> None:
    """See that every leaf of an output can be in a file.

    Raises:
        TypeError: one cannot.
    """
    for place, leaf in leaves(output):
        path = spelled(place)
        if not isinstance(leaf, kinds):
            raise TypeError(
                f"the model's output{f' at {path!r}' if path else ''} is of type "
                f"{type(leaf).__name__}, which {what} cannot return: have the model return tensors."
                f"{NO_CACHE if 'Cache' in type(leaf).__name__ else ''}"
            )


def seen_inputs(model: nn.Module, inputs: Sequence[InputSpec]) -> Example:
    """An example for a model, made from the shapes and dtypes of inputs that a surrogate saw.

    Raises:
        ValueError: there are none.
    """
    if not inputs:
        raise ValueError(
            "an example of the model's inputs is needed, and no swap in this model recorded their "
            "shapes: pass example_inputs=(tensor, …), or a dictionary by name."
        )
    device = next((tensor.device for tensor in tensors(model).values()), torch.device("cpu"))
    return Example.made(inputs, device)


def _tensors_only(example: Example) -> tuple[Example, dict[str, Any]]:
    """The keyword arguments that hold tensors, and the others, which become part of the program."""
    constants = {
        name: value
        for name, value in example.kwargs.items()
        if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))
    }
    kwargs = {name: value for name, value in example.kwargs.items() if name not in constants}
    return replace(example, kwargs=kwargs), constants


def _prepared(model: nn.Module, example: Example, constants: dict[str, Any]) -> nn.Module:
    """A copy in eval mode that knows the constant arguments and returns plain outputs."""
    with _quiet():
        copied = copy.deepcopy(model).eval()  # a graph of torch.export refuses, its copy does not
    if constants or not named_parameters(copied):
        _fix_arguments(copied, list(example.kwargs), constants)
    copied.register_forward_hook(lambda module, args, output: plain(output))
    return copied


def _fix_arguments(model: nn.Module, names: Sequence[str], constants: dict[str, Any]) -> None:
    """Let a forward know its constant arguments, and say which others it takes.

    torch.export goes by the signature, and that may be ``**kwargs`` alone.
    """
    forward: Any = model.forward
    parameters = dict(inspect.signature(forward).parameters)
    if not named_parameters(model):
        by_name = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
        rest = [p for p in parameters.values() if p.kind is inspect.Parameter.VAR_POSITIONAL]
        parameters = {parameter.name: parameter for parameter in [*rest, *by_name]}

    @functools.wraps(forward)
    def fixed(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **constants, **kwargs)

    kept = [parameter for name, parameter in parameters.items() if name not in constants]
    vars(fixed)["__signature__"] = inspect.Signature(kept)
    vars(model)["forward"] = fixed


def _exported(
    model: nn.Module, example: Example, axes: Sequence[FreeAxis]
) -> torch.export.ExportedProgram:
    """Export with open sizes, if need be within limits that the model has, say of positions."""
    free = {axis: torch.export.Dim(axis.name) for axis in axes}
    try:
        return _exported_with(model, example, axes, free)
    except Exception as error:  # torch.export has many error classes and runs the user's code
        failed = error
    if VIOLATED in str(failed):
        limited = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
        with contextlib.suppress(Exception):  # a size that is fixed: the first error names it
            return _exported_with(model, example, axes, limited)
    detail = str(failed).partition("\n  - ")[2].partition(". ")[0]
    raise RuntimeError(
        f"torch.export cannot export this {type(model).__name__}: {in_short(failed)}"
        f"{f' {detail}.' if detail else ''}{way_out(axes)}"
    ) from failed


def _exported_with(
    model: nn.Module, example: Example, axes: Sequence[FreeAxis], sizes: dict[FreeAxis, Any]
) -> torch.export.ExportedProgram:
    call = example.copied()  # a failed attempt leaves marks on its tensors
    shapes = by_argument(model, call, axes, sizes) if axes else None
    with _quiet():
        return torch.export.export(model, call.args, call.kwargs, dynamic_shapes=shapes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No remarks of torch on its own copying, nor on what recurrent modules do with their weights.

    If that mattered, the program would differ from the model. A half-made graph is not printed
    either: the error says why there is no whole one.
    """
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        warnings.filterwarnings("ignore", "The tensor attributes .* were assigned", UserWarning)
        yield
