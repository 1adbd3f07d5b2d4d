"""Nodes: those of a graph that hold the outputs of a span's two layers."""

from __future__ import annotations

import builtins
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from torchkoopman.observe.names import nearest
from torchkoopman.observe.places import Step, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torchkoopman.observe.places import Place

LABEL = "torchkoopman.layers"
"""Key of ``Node.meta`` in a graph without module calls: the layers whose output the node holds."""


@dataclass(frozen=True)
class Traced:
    """A model as a graph, with the nodes of two layers' outputs."""

    root: nn.Module
    """What the graph's targets are attributes of."""
    graph: fx.Graph
    first: fx.Node
    last: fx.Node
    numbers: frozenset[int] = frozenset()
    """Memory, of no tensor of the model, that the trace has read numbers of."""


def output_node(graph: fx.Graph, result: Any, place: Place | None, layer: str) -> fx.Node:
    """The node of a layer's state, from what its call returned while it was traced.

    Args:
        graph: the graph; it gets a node for the state where none was needed before.
        result: a proxy, or a container of proxies.
        place: where the state is; None for the output itself, or the first of several values.
        layer: for errors.
    """
    if place is None:
        several = isinstance(result, tuple | list) and result
        place = (Step(0),) if several else ()
    steps = list(place)
    while steps and not isinstance(result, fx.Proxy):
        result = read(result, (steps.pop(0),))
    if not isinstance(result, fx.Proxy):
        raise ValueError(
            f"layer {layer!r} does not return one value, and a module can only stand for one: "
            "choose a layer inside it or after it, or give example_inputs, from which the place of "
            "its state is found."
        )
    node = result.node
    for step in steps:
        node = _item(graph, node, step, layer)
    return node


def labelled(root: nn.Module) -> tuple[fx.Graph, dict[str, fx.Node]] | None:
    """The graph of a model that torch.export made, and its layers' outputs; None for any other."""
    if not isinstance(root, fx.GraphModule):
        return None
    nodes = {name: node for node, name in _labels(root.graph.nodes)}
    return (root.graph, nodes) if nodes else None


def labelled_node(nodes: dict[str, fx.Node], layer: str) -> fx.Node:
    """The node of a layer's output in a graph that names them."""
    if layer not in nodes:
        raise ValueError(
            f"the exported graph has no output of a layer {layer!r}: the layer may be called "
            "several times, return nothing new, or be inside a span that was swapped; nearest: "
            f"{nearest(layer, nodes)}."
        )
    return nodes[layer]


def call_names(graph_nodes: Iterable[fx.Node]) -> Iterator[tuple[fx.Node, str]]:
    """Every layer's output in a graph with the name that selects it, in order of execution."""
    graph_nodes = list(graph_nodes)
    yield from _labels(graph_nodes)
    nodes = [node for node in graph_nodes if node.op == "call_module"]
    targets = [str(node.target) for node in nodes]
    for index, (node, target) in enumerate(zip(nodes, targets, strict=True)):
        call = targets[:index].count(target)
        yield node, f"{target}#{call}" if targets.count(target) > 1 else target


def _labels(nodes: Iterable[fx.Node]) -> Iterator[tuple[fx.Node, str]]:
    for node in nodes:
        for name in node.meta.get(LABEL, ()):
            yield node, name


def _item(graph: fx.Graph, node: fx.Node, step: Step, layer: str) -> fx.Node:
    """The one node of an entry of a container, right after the container."""
    function = builtins.getattr if step.field else operator.getitem
    whole = [user.name for user in node.users if _is_field(user) is None]
    if whole:
        raise RuntimeError(
            f"a graph cannot hold the state of layer {layer!r} apart: its whole output, of which "
            f"the state is an entry, is handed on to {', '.join(map(repr, whole))}."
        )
    reads = [user for user in node.users if (_is_field(user), *user.args[1:2]) in step.spellings]
    if not reads:
        with graph.inserting_after(node):
            return graph.call_function(function, (node, step.key))
    first, *others = sorted(reads)
    node.append(first)
    for user in others:
        user.replace_all_uses_with(first)
        graph.erase_node(user)
    return first


def _is_field(user: fx.Node) -> bool | None:
    """Whether a node reads an attribute; None if it reads neither that nor an item."""
    kinds = {builtins.getattr: True, operator.getitem: False}
    return kinds.get(user.target) if callable(user.target) else None
