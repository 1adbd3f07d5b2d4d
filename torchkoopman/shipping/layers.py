"""What tensors do not say of a model: the kinds of its innermost modules, such as ReLU or Tanh.

Weights of a network with other activations have the same names and shapes. What a forward calls by
itself, ``torch.relu(x)``, is in no module; a model swapped by fx or export is a graph, which tells.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from torchkoopman.storage.errors import MisfitFileError

if TYPE_CHECKING:
    from pathlib import Path

_SHOWN = 3
"""Differences that a message names."""


def layers_of(model: nn.Module) -> dict[str, Any]:
    """What to compare, JSON-able: ``"modules"`` by name, and in a graph what it ``"calls"``."""
    modules = {
        name: _kind(module)
        for name, module in model.named_modules()
        if not any(True for _ in module.children())
    }
    calls = []
    if isinstance(model, fx.GraphModule):
        nodes = (node for node in model.graph.nodes if node.op in ("call_function", "call_method"))
        calls = [_called(node.target) for node in nodes]
    return {"modules": modules, "calls": calls, "torch": str(torch.__version__)}


def check_layers(path: Path, said: dict[str, Any], model: nn.Module) -> None:
    """See that a model's modules are of the kinds that a file was written with.

    Raises:
        MisfitFileError: they differ; some are named.
    """
    found = layers_of(model)
    written, here = said["modules"], found["modules"]
    names = [name for name in (*written, *here) if written.get(name) != here.get(name)]
    differences = [
        f"{name!r} was {written.get(name, 'not there')} and is {here.get(name, 'not there')} here"
        for name in list(dict.fromkeys(names))
    ]
    if not differences and said["torch"] == found["torch"]:  # others record other calls
        pairs = zip(said["calls"], found["calls"], strict=False)
        differences = [f"the model called {a} and calls {b} here" for a, b in pairs if a != b]
        if not differences and len(said["calls"]) != len(found["calls"]):
            counts = len(said["calls"]), len(found["calls"])
            differences = [f"the model made {counts[0]} calls and makes {counts[1]} here"]
    if differences:
        rest = len(differences) - _SHOWN
        more = f", and {rest} more" if rest > 0 else ""
        theirs, ours = said["torch"], found["torch"]
        words = (
            f" If it is that, torch {theirs} and {ours} describe the same modules in other words: "
            f"read the file with torch {theirs}."
        )
        raise MisfitFileError(
            f"{str(path)!r} was written by another model than the one given: "
            f"{'; '.join(differences[:_SHOWN])}{more}. Its tensors fit, and the outputs would be "
            "wrong: give load() the architecture that the file was written with."
            f"{'' if theirs == ours else words}"
        )


def _kind(module: nn.Module) -> str:
    """Class and, of torch's own, settings; not those that leave outputs in eval mode alone."""
    kind = type(module).__name__
    if not type(module).__module__.startswith("torch.nn.") or "Dropout" in kind:
        return kind
    settings = re.sub(r"(, )?inplace=\w+", "", module.extra_repr())
    return f"{kind}({settings})"


def _called(target: Any) -> str:
    """The name of what a node of a graph calls."""
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))
