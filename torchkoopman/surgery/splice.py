"""Splicing: a module is put in place of a clean cut in a graph."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from torchkoopman.graphs.aliasing import effect_of
from torchkoopman.graphs.cut import cut_graph
from torchkoopman.graphs.exported import export_span
from torchkoopman.graphs.nodes import LABEL
from torchkoopman.graphs.side_effects import NO_GRAD, SideEffect
from torchkoopman.graphs.trace import MODES, trace_span
from torchkoopman.observe.example import MASK
from torchkoopman.observe.views import View
from torchkoopman.surgery.edited import Edited, apart, free_name, without_history
from torchkoopman.surgery.swapped import bind, swapped_module
from torchkoopman.surgery.unproven import refuse_unproven

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

    from torchkoopman.graphs.cut import Cut
    from torchkoopman.graphs.nodes import Traced
    from torchkoopman.observe.places import Place
    from torchkoopman.surgery.copies import Workbench
    from torchkoopman.surgery.evidence import Evidence
    from torchkoopman.surgery.request import SwapRequest


_ARGUMENTS = (
    " A graph takes every argument as given, also an optional one: pass all that its forward can "
    "take, or set the default in a wrapper."
)
_EVALUATES = (
    " A program of torch.export computes as in eval mode: call eval() on the model before the swap."
)
CHECK = torch.ops.aten._assert_tensor_metadata.default
"""What torch.export puts in beside a conversion; it goes with the value it looks at."""


def by_tracing(bench: Workbench, request: SwapRequest, evidence: Evidence | None) -> Edited:
    """Cut in the graph that torch.fx traces; see :func:`trace_span` and :class:`DirtyCut`.

    Raises:
        RuntimeError: the model cannot be traced, or, without evidence, something is in the way
            that only a replay could show to be harmless.
    """
    places = evidence.places if evidence else _places(request)
    root = bench.to_edit()
    try:
        traced = trace_span(root, request.start, request.end, places)
        cut = cut_graph(
            traced, request.start, request.end, request.side_inputs, request.keep_escapes
        )
    finally:
        written = bench.restore()
    if written:
        raise SideEffect(
            f"tracing {type(root).__name__} writes into {', '.join(map(repr, written[:5]))}, and "
            "its graph would not: swap with how='eager'."
        )
    if evidence is None:
        refuse_unproven(traced, cut, request, root)
    nodes = [_spelled(node) for node in traced.graph.nodes]
    edited = _splice(request, traced, cut, evidence)
    if evidence is None and nodes != _nodes_in_the_other_mode(bench, request):
        bind(edited.model)
    return replace(edited, advice=_ARGUMENTS, unseen=_unseen(cut))


def by_exporting(bench: Workbench, request: SwapRequest, evidence: Evidence | None) -> Edited:
    """Cut in the graph that torch.export records; see :func:`export_span` and :class:`DirtyCut`.

    Raises:
        RuntimeError: there are no example inputs, or torch.export cannot take the model.
    """
    if evidence is None:
        raise RuntimeError("torch.export runs the model: give example_inputs.")
    try:
        traced = export_span(
            bench.to_edit(), evidence.example, request.start, request.end, evidence.places
        )
    finally:
        bench.restore()
    cut = cut_graph(traced, request.start, request.end, request.side_inputs, request.keep_escapes)
    edited = _splice(request, traced, cut, evidence)
    modes = {name: module.training for name, module in request.model.named_modules()}
    for name, module in edited.model.named_modules():
        module.training = modes.get(name, request.model.training)
    edited.notes.append("an exported graph computes as in eval mode, whatever its mode")
    training = _EVALUATES if request.model.training else ""
    return replace(edited, advice=_ARGUMENTS, unseen=_unseen(cut) + training)


def _places(request: SwapRequest) -> dict[str, Place]:
    """Where the states are according to the views; no layer is run to find out."""
    return {layer: view.place for layer, view in request.known.items() if isinstance(view, View)}


def _nodes_in_the_other_mode(bench: Workbench, request: SwapRequest) -> list[str]:
    """The model's graph when it is switched between training and evaluation."""
    root = bench.to_edit()
    root.train(not request.model.training)
    try:
        traced = trace_span(root, request.start, request.end, _places(request))
    except (RuntimeError, ValueError):
        return []
    finally:
        bench.restore()
    return [_spelled(node) for node in traced.graph.nodes]


def _spelled(node: fx.Node) -> str:
    return f"{node.op} {node.target} {node.args} {node.kwargs}"


def _splice(request: SwapRequest, traced: Traced, cut: Cut, evidence: Evidence | None) -> Edited:
    """Edit the graph: the module after the first end, the region out."""
    graph, root = traced.graph, traced.root
    nodes = {node.name: node for node in graph.nodes}
    name = free_name(root, request.start, request.end)
    root.add_module(name, request.module)
    masks = [n for n in graph.nodes if n.op == "placeholder" and n.target == MASK]
    masked = getattr(request.module, "takes_mask", False)
    notes = _notes(graph, cut, [MASK] if masked else [])
    if masked and not masks:
        notes.append(f"the model has no argument {MASK!r}: the module counts every position")
    with graph.inserting_after(traced.first):  # right here: nobody has written into it yet
        state = traced.first
        if evidence is not None and evidence.written:
            with graph.inserting_after(state):
                state = graph.call_method("clone", (state,))
    with graph.inserting_after(state):
        new = graph.call_module(name, (state, *(masks if masked else ())))
    effect = effect_of(new, root)
    if traced.last.meta.get(MODES) == NO_GRAD:
        with graph.inserting_after(new):
            new = _call(graph, without_history, new, state)
    if not getattr(request.module, "fresh", False) and (effect.shares or not effect.known):
        with graph.inserting_after(new):
            new = _call(graph, apart, new, traced.first)
    new.meta.update({LABEL: traced.last.meta[LABEL]} if LABEL in traced.last.meta else {})
    traced.last.replace_all_uses_with(new)
    entering = {value for key in cut.region for value in nodes[key].all_input_nodes}
    for key in reversed(cut.region):
        graph.erase_node(nodes[key])
    _prune(traced, entering - {nodes[key] for key in cut.region} - {traced.first, new})
    _detach(graph)
    if not new.users:
        raise ValueError(
            f"nothing in the model uses the state of {request.end!r}, so a module in its place "
            "would change nothing: choose another layer, or another of its tensors with output=."
        )
    graph.lint()
    kind = type(request.model).__name__
    edited = swapped_module(root, graph, kind, request.model, traced.numbers)
    return Edited(edited, name, cut.layers, notes)


def _call(graph: fx.Graph, function: Callable[..., Any], *args: fx.Node) -> fx.Node:
    """A call that stays one when the graph is traced again, as unpickling does.

    On stand-ins for values the function could not see whether two of them are the same.
    """
    node = graph.call_function(function, args)
    node.meta["is_wrapped"] = True
    return node


def _detach(graph: fx.Graph) -> None:
    """Cut the history of what the model computes under ``torch.no_grad``."""
    for node in list(graph.nodes):
        if node.meta.get(MODES) == NO_GRAD and node.op.startswith("call_"):
            with graph.inserting_after(node):
                cut = _call(graph, without_history, node)
            node.replace_all_uses_with(cut, delete_user_cb=lambda user, cut=cut: user is not cut)


def _prune(traced: Traced, nodes: set[fx.Node]) -> None:
    """Remove what nobody uses any more, such as the masks that only the replaced layers read."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        effect = effect_of(node, traced.root)
        if not effect.known or effect.writes or node.op == "placeholder":
            continue
        if all(user.target is CHECK for user in node.users):
            for user in list(node.users):
                traced.graph.erase_node(user)
            waiting += [each for each in node.all_input_nodes if each not in waiting]
            traced.graph.erase_node(node)


def _notes(graph: fx.Graph, cut: Cut, seen: list[str]) -> list[str]:
    """Which arguments of the model the replaced layers read besides their input, and what stays."""
    reached = {node for node in graph.nodes if node.name in cut.side_inputs}
    for node in reversed(graph.nodes):
        reached.update(node.all_input_nodes if node in reached else ())
    names = [str(n.target) for n in graph.nodes if n.op == "placeholder" and n in reached]
    unseen = [name for name in names if name not in seen and name in cut.arguments]
    notes = [f"the module does not see {', '.join(unseen)}"] if unseen else []
    return notes + [f"kept, since it escapes: {each}" for each in cut.kept]


def _unseen(cut: Cut) -> str:
    """What the graph did not show, for the message of a replay that fails."""
    return f" Not looked into: {', '.join(cut.opaque)}." if cut.opaque else ""
