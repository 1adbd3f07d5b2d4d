"""Recordings: what a model and two of its layers returned, to prove an edited model against.

An edited model with the recorded output of the span's last layer in place of the new module must
return what the model returned, bit by bit: so wiring and a poor module are never confused.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from torchkoopman.graphs.nodes import labelled, labelled_node
from torchkoopman.observe.names import named_module, which_call
from torchkoopman.observe.places import leaves, read
from torchkoopman.observe.views import find_state

if TYPE_CHECKING:
    from torchkoopman.observe.example import Example
    from torchkoopman.observe.places import Place


@dataclass(frozen=True)
class Recording:
    """One call of a model in eval mode."""

    example: Example
    """What it was called with."""
    result: Any
    """What it returned."""
    outputs: dict[str, Any]
    """What the layers returned, by name; copies."""
    places: dict[str, Place]
    """Where in these their states are."""

    def state(self, layer: str) -> Any:
        """The recorded state of a layer."""
        return read(self.outputs[layer], self.places[layer])


def record(model: nn.Module, example: Example, layers: tuple[str, ...]) -> Recording:
    """Run a copy of a model in eval mode and keep what some layers return.

    Raises:
        ValueError: a layer that does not exist, is not called, or is called several times.
        TypeError: a layer's output holds no state, or several that could be it.
        RuntimeError: the model fails on the example.
    """
    model = copy.deepcopy(model).eval()
    seen: dict[str, list[Any]] = {layer: [] for layer in layers}
    graph = labelled(model)
    for layer in layers:
        watched = named_module(model, layer) if graph is None else _watch(model, graph[1], layer)
        watched.register_forward_hook(
            lambda module, inputs, output, layer=layer: seen[layer].append(_cloned(output))
        )
    try:
        result = example.run(model)
    except Exception as error:  # runs the user's code
        raise RuntimeError(
            f"{type(model).__name__} fails on the example inputs: {type(error).__name__}: {error}"
        ) from error
    calls = {layer: 0 if graph else which_call(model, layer, len(seen[layer])) for layer in layers}
    outputs = {layer: seen[layer][call] for layer, call in calls.items()}
    places = {layer: find_state(output, layer) for layer, output in outputs.items()}
    return Recording(example, result, outputs, places)


def _watch(model: nn.Module, nodes: dict[str, fx.Node], layer: str) -> nn.Module:
    """A module that sees a layer's output in a graph that has no modules."""
    assert isinstance(model, fx.GraphModule)
    node, name = labelled_node(nodes, layer), f"_watch_{len(model._modules)}"
    model.add_module(name, nn.Identity())
    with model.graph.inserting_after(node):
        model.graph.call_module(name, (node,))
    model.recompile()
    return model.get_submodule(name)


class Recorded(nn.Module):
    """Returns a recorded value, whatever comes in."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, *inputs: Any) -> Any:
        """A copy of the value."""
        return _cloned(self.value)


def prove(edited: nn.Module, recording: Recording, span: tuple[str, str], unseen: str = "") -> None:
    """Run an edited model in which :class:`Recorded` stands for the span's module.

    Args:
        edited: the edited model; run in eval mode.
        recording: of the model before.
        span: the two layers' names, for the message.
        unseen: what the proof on the graph could not look into, for the message.

    Raises:
        RuntimeError: it fails, or returns something else than the model did.
    """
    start, end = span
    try:
        result = recording.example.run(edited.eval())
    except Exception as error:  # runs the user's code
        raise RuntimeError(
            f"the model swapped from {start!r} to {end!r} fails on the example inputs: "
            f"{type(error).__name__}: {error} A graph takes every argument as given, also an "
            "optional one: pass all that its forward can take, or set the default in a wrapper."
        ) from error
    found, expected = ([leaf for _, leaf in leaves(each)] for each in (result, recording.result))
    if len(found) != len(expected) or not all(map(_equal, found, expected)):
        raise RuntimeError(
            f"swapping from {start!r} to {end!r} changes the model even with the recorded "
            f"output of {end!r} in place, so something crosses that the graph does not show: a "
            "layer that writes into its input or keeps a state, a hook, a context manager, or "
            f"randomness in eval mode. Not looked into: {unseen or 'nothing'}. "
            "Choose a span without it."
        )


def _equal(value: Any, other: Any) -> bool:
    if isinstance(value, Tensor) and isinstance(other, Tensor):
        return torch.equal(value, other) or _equal_with_nan(value, other)
    if "__eq__" not in {name for kind in type(value).__mro__[:-1] for name in vars(kind)}:
        return type(value) is type(other)  # a cache, say: identity is all it compares
    return bool(value == other)


def _equal_with_nan(value: Tensor, other: Tensor) -> bool:
    same = value.shape == other.shape and value.dtype == other.dtype
    return same and bool(torch.isclose(value, other, rtol=0, atol=0, equal_nan=True).all())


def _cloned(value: Any) -> Any:
    return pytree.tree_map_only(Tensor, torch.clone, value)
