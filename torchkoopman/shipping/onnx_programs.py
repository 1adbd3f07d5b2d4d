"""ONNX programs: a captured model for runtimes that know nothing of torch."""

from __future__ import annotations

import contextlib
import importlib
import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchkoopman.observe.places import leaves, spelled
from torchkoopman.shipping.axes import by_tensor
from torchkoopman.shipping.card import CARD, card_text
from torchkoopman.shipping.parity import in_short
from torchkoopman.shipping.programs import check_output
from torchkoopman.storage.onnx_files import seal_onnx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torchkoopman.observe.example import Example
    from torchkoopman.shipping.programs import Program

NEEDED = ("onnx", "onnxscript", "onnxruntime")
"""Packages of the extra ``onnx``: to build, to translate, and to check."""
TALKATIVE = ("torch.onnx", "onnx_ir", "onnxscript")
"""Loggers of the exporter."""


def check_installed() -> None:
    """See that ONNX files can be written and checked.

    Raises:
        ImportError: a package is missing.
    """
    for package in NEEDED:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ImportError(
                f"export() to '.onnx' needs the package {package}, which cannot be imported "
                f"({error}): pip install 'torchkoopman[onnx]'."
            ) from error


def save_onnx(program: Program, path: Path, card: dict[str, Any]) -> None:
    """Write a program as ONNX, read it with onnxruntime, and hold it against the model.

    Inputs have the names of forward's arguments, outputs those of the model's output: keys, fields
    or indices, or ``"output"``. Weights beyond what one file can hold go into ``<name>.onnx.data``
    beside it.

    Raises:
        TypeError: the output holds something that is not a tensor.
        RuntimeError: an operation has no translation, or onnxruntime does not agree with the model.
    """
    _, output = program.trials.runs[0]
    check_output(output, (Tensor, type(None)), "an ONNX program")
    translated = _translated(program)
    _name(
        translated.model, program, [spelled(at) for at, leaf in leaves(output) if leaf is not None]
    )
    translated.model.metadata_props[CARD] = card_text(card)
    with _quiet():
        translated.save(path)
    seal_onnx(path)
    program.trials.check(_session(path))


def _translated(program: Program) -> torch.onnx.ONNXProgram:
    """The program in ONNX's operations, with names for its open sizes."""
    names = by_tensor(program.example, program.axes, {axis: axis.name for axis in program.axes})
    try:
        with _quiet():
            translated = torch.onnx.export(program.exported, verbose=False, dynamic_shapes=names)
    except Exception as error:  # the exporter has many error classes, some of onnxscript's
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise RuntimeError(
            f"torch.onnx cannot translate this {type(program.model).__name__}: {in_short(cause)} "
            "A '.pt2' file can hold it all the same; transformers translate more often when made "
            "with attn_implementation='eager'."
        ) from error
    assert translated is not None  # it is for exporters of old
    return translated


def _name(model: Any, program: Program, paths: list[str]) -> None:
    """Give inputs and outputs their names; other values that have such a name give way."""
    ends = [*model.graph.inputs, *model.graph.outputs]
    wanted = [name for name in program.exported.graph_signature.user_inputs if type(name) is str]
    for path in paths:
        name = path if path and not path[0].isdecimal() else f"output.{path}".rstrip(".")
        while name in wanted:
            name += "_out"
        wanted.append(name)
    if len(wanted) != len(ends):  # a constant among the arguments: the exporter's names will do
        return
    inner = [value for node in model.graph for value in node.outputs]
    for value in [*inner, *model.graph.initializers.values()]:
        if value.name in wanted:
            value.name = f"inner.{value.name}"
    for index, value in enumerate(ends):  # first out of each other's way
        value.name = f"end.{index}"
    for value, name in zip(ends, wanted, strict=True):
        value.name = name


def _session(path: Path) -> Any:
    """From an example to the tensors that onnxruntime computes with the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has many error classes
        raise RuntimeError(
            f"onnxruntime cannot run the ONNX program: {in_short(error)} It has every operation in "
            "float32: convert a model of another precision with model.float()."
        ) from error

    def run(example: Example) -> list[Tensor]:
        names = [entry.name for entry in session.get_inputs()]
        arrays = [tensor.numpy(force=True) for tensor in example.tensors]
        results = session.run(None, dict(zip(names, arrays, strict=True)))
        return [torch.as_tensor(result) for result in results]

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No word of the exporter about its own internals; what goes wrong in it, it raises.

    No code of the user's runs in here: the program is captured.
    """
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
