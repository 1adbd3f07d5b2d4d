"""Splicing: a module is put in place of a clean cut in a graph."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from torchkoopman.graphs.aliasing import effect_of
from torchkoopman.graphs.cut import Cut, cut_graph
from torchkoopman.graphs.exported import export_span
from torchkoopman.graphs.nodes import LABEL
from torchkoopman.graphs.trace import trace_span
from torchkoopman.observe.example import MASK
from torchkoopman.surgery.history import swapped_module
from torchkoopman.surgery.replay import prove
from torchkoopman.surgery.request import Plan, Spliced, free_name

if TYPE_CHECKING:
    from torch import fx

    from torchkoopman.graphs.nodes import Traced


CHECK = torch.ops.aten._assert_tensor_metadata.default
"""What torch.export puts in beside a conversion; it goes with the value it looks at."""


def by_tracing(plan: Plan) -> Spliced:
    """Cut in the graph that torch.fx traces; see :func:`trace_span` and :class:`DirtyCut`.

    Raises:
        RuntimeError: the model cannot be traced, or a replay of the example finds a difference.
    """
    spliced, cut = _traced(plan)
    if plan.recording is not None:
        evaluated = replace(plan.oracle, model=copy.deepcopy(plan.model).eval())
        prove(_traced(evaluated)[0].model, plan.recording, (plan.start, plan.end), _unseen(cut))
    return spliced


def by_exporting(plan: Plan) -> Spliced:
    """Cut in the graph that torch.export records; see :func:`export_span` and :class:`DirtyCut`.

    Raises:
        RuntimeError: there are no example inputs, torch.export cannot take the model, or a replay
            finds a difference.
    """
    recording = plan.recording
    if recording is None:
        raise RuntimeError("torch.export runs the model: give example_inputs.")
    traced = export_span(plan.model, recording.example, plan.start, plan.end, recording.places)
    cut = cut_graph(traced, plan.start, plan.end, plan.side_inputs, plan.keep_escapes)
    spliced = _splice(plan, traced, cut)
    edited = spliced.model
    edited.set_submodule(spliced.module, plan.oracle.module)
    prove(edited, recording, (plan.start, plan.end), _unseen(cut))
    edited.set_submodule(spliced.module, plan.module)
    modes = {name: module.training for name, module in plan.model.named_modules()}
    for name, module in edited.named_modules():
        module.training = modes.get(name, plan.model.training)
    spliced.notes.append("an exported graph computes as in eval mode, whatever its mode")
    return spliced


def _traced(plan: Plan) -> tuple[Spliced, Cut]:
    places = plan.recording.places if plan.recording else None
    traced = trace_span(copy.deepcopy(plan.model), plan.start, plan.end, places)
    cut = cut_graph(traced, plan.start, plan.end, plan.side_inputs, plan.keep_escapes)
    return _splice(plan, traced, cut), cut


def _splice(plan: Plan, traced: Traced, cut: Cut) -> Spliced:
    """Edit the graph: the module after the first end, the region out."""
    graph, root = traced.graph, traced.root
    nodes = {node.name: node for node in graph.nodes}
    name = free_name(root, plan.start, plan.end)
    root.add_module(name, plan.module)
    masks = [n for n in graph.nodes if n.op == "placeholder" and n.target == MASK]
    masked = getattr(plan.module, "takes_mask", False)
    notes = _notes(graph, cut, [MASK] if masked else [])
    if masked and not masks:
        notes.append(f"the model has no argument {MASK!r}: the module counts every position")
    with graph.inserting_after(traced.first):  # right here: nobody has written into it yet
        new = graph.call_module(name, (traced.first, *(masks if masked else ())))
    new.meta.update({LABEL: traced.last.meta[LABEL]} if LABEL in traced.last.meta else {})
    traced.last.replace_all_uses_with(new)
    entering = {value for key in cut.region for value in nodes[key].all_input_nodes}
    for key in reversed(cut.region):
        graph.erase_node(nodes[key])
    _prune(traced, entering - {nodes[key] for key in cut.region} - {traced.first})
    graph.lint()
    edited = swapped_module(root, graph, type(plan.model).__name__)
    return Spliced(edited, name, cut.layers, notes)


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
    return ", ".join(cut.opaque)
