"""Cuts: the part of a graph between two layers' outputs, and the proof that nothing else crosses.

A module that is to stand for a span sees the output of the span's first layer and gives that of its
last. This is exact only if the last layer's output is a function of the first's, and if nothing
that is computed between them is used elsewhere, be it handed on or written in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch._ops import OpOverload

from torchkoopman.graphs.aliasing import Flow
from torchkoopman.graphs.nodes import call_names
from torchkoopman.graphs.region import Crossing, DirtyCut, Region, layer_of
from torchkoopman.graphs.side_effects import NO_GRAD
from torchkoopman.graphs.trace import MODES, trace_span
from torchkoopman.graphs.undisturbed import undisturbed
from torchkoopman.observe.surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import fx, nn

    from torchkoopman.graphs.nodes import Traced


@dataclass(frozen=True)
class Cut:
    """A clean cut: everything a module between two layers' outputs replaces."""

    start: str
    """The layer after whose output the span begins."""
    end: str
    """The layer with whose output it ends."""
    nodes: tuple[str, str]
    """Names of the graph's nodes of these two outputs."""
    region: tuple[str, ...]
    """Nodes that go, in order of execution; the last layer's output is among them."""
    layers: tuple[str, ...]
    """Module calls among them."""
    side_inputs: tuple[str, ...]
    """Values that enter from elsewhere but do not depend on the content of the model's input:
    parameters, constants, sizes. Found harmless."""
    opaque: tuple[str, ...]
    """Modules and functions anywhere in the graph that could not be looked into. They are taken not
    to write into what they are given; replay an example to be sure."""

    arguments: tuple[str, ...]
    """Names that were taken to say where, not what."""
    kept: tuple[str, ...] = ()
    """Values that escape the span, whose computation stays because it was asked for."""
    lost: tuple[str, ...] = ()
    """Modes (autocast, no_grad) under which the model computes something outside of the span or
    the last output, and the graph does not. Replay an example to see whether they matter."""

    def __str__(self) -> str:
        unseen = f"; not looked into: {', '.join(self.opaque)}" if self.opaque else ""
        sides = f"; side inputs: {', '.join(self.side_inputs)}" if self.side_inputs else ""
        kept = f"; kept, since they escape: {', '.join(self.kept)}" if self.kept else ""
        return (
            f"clean cut from {self.start!r} to {self.end!r}: {len(self.region)} operations, layers "
            f"{', '.join(self.layers) or 'none'}{sides}{kept}{unseen}"
        )


SIDE_WORDS = ("mask", "position")
"""An argument with one of these in its name tells which positions count and where they are. A layer
may read it besides its input, and a module in place of the layer need not."""


def find_cut(
    model: nn.Module, start: str, end: str, side_inputs: Sequence[str] | None = None
) -> Cut:
    """The cut between the outputs of two layers of a model, if it is clean.

    The model is traced, not run, in its current training mode, and left as it was.

    Args:
        model: any module whose forward torch.fx can trace down to the two layers.
        start: a name of ``model.named_modules()``; ``name#k`` for its k-th call, from 0.
        end: likewise; its output must depend on that of ``start``.
        side_inputs: the model's arguments, or values named by an earlier refusal, that may enter
            the span besides the output of ``start``. By default those with "mask" or "position" in
            their name.

    Raises:
        DirtyCut: a value crosses the border of the span; it is named, with the nearest clean cut.
        ValueError: a layer that does not exist or is called several times, ends in the wrong order.
        RuntimeError: the model cannot be traced.
    """
    check_ends(start, end)
    with undisturbed(model):
        return cut_graph(trace_span(model, start, end), start, end, side_inputs)


def check_ends(start: str, end: str) -> None:
    """Refuse a span of no layer."""
    if start == end:
        raise ValueError(
            f"start and end are both {start!r}: a span lies between two different layers' outputs. "
            "To replace one layer, start at the layer before it."
        )


def cut_graph(
    traced: Traced,
    start: str,
    end: str,
    side_inputs: Sequence[str] | None = None,
    keep_escapes: bool = False,
) -> Cut:
    """As :func:`find_cut`, on a graph that is there already.

    With ``keep_escapes`` values that escape are no objection: what computes them stays.
    """
    first, last = traced.first, traced.last
    with Surroundings(traced.root).kept():
        flow = Flow(traced.graph, traced.root, _side_inputs(traced.graph, side_inputs))
    _check_order(flow, (first, last), (start, end))
    region = Region(flow, first, last)
    crossings = tuple(region.crossings())
    escaping = tuple(each for each in crossings if keep_escapes and each.kind == "escapes")
    crossings = tuple(each for each in crossings if each not in escaping)
    if crossings:
        listed = "".join(f"\n  {crossing}" for crossing in crossings)
        raise DirtyCut(
            f"a module between the outputs of {start!r} and {end!r} cannot be exact, since values "
            f"cross the border of that span elsewhere:{listed}\n"
            f"{_nearest(flow, (first, last), (start, end))}{_way_out(crossings)}",
            crossings,
        )
    return _cut(region, start, end, escaping)


def _side_inputs(graph: fx.Graph, given: Sequence[str] | None) -> frozenset[str]:
    """The names given, else those of the arguments that tell positions and padding."""
    names = {str(node.target).lstrip("*") for node in graph.nodes if node.op == "placeholder"}
    if given is None:
        return frozenset(name for name in names if any(word in name for word in SIDE_WORDS))
    unknown = set(given) - names - {node.name for node in graph.nodes}
    if unknown:
        raise ValueError(
            f"side_inputs names {', '.join(map(repr, sorted(unknown)))}, which is no argument and "
            f"no value of the model; its arguments are {', '.join(map(repr, sorted(names)))}."
        )
    return frozenset(given)


def _check_order(flow: Flow, ends: tuple[fx.Node, fx.Node], names: tuple[str, str]) -> None:
    (first, last), (start, end) = ends, names
    if last in flow.descendants(first):
        return
    if first is last:
        reason = "they return the same value"
    elif first in flow.descendants(last):
        reason = f"{start!r} comes after {end!r} (names swapped?)"
    else:
        reason = f"the output of {end!r} does not depend on that of {start!r} (parallel branches?)"
    raise ValueError(f"there is no span from {start!r} to {end!r}: {reason}.")


def _nearest(flow: Flow, ends: tuple[fx.Node, fx.Node], names: tuple[str, str]) -> str:
    """The nearest other end that makes the cut clean, else the nearest other start."""
    first, last = ends
    calls = {node: name for node, name in call_names(flow.nodes) if name not in names}
    following = flow.descendants(first) - {last}
    leading = flow.ancestors([last]) - {first, last}

    def nearby(nodes: Iterable[fx.Node], to: fx.Node) -> list[fx.Node]:
        return sorted(nodes, key=lambda node: abs(flow.order[node] - flow.order[to]))

    for node in nearby((n for n in calls if n in following), last):
        if not any(Region(flow, first, node).crossings()):
            return f"The nearest clean cut has end={calls[node]!r}."
    for node in nearby((n for n in calls if n in leading), first):
        if not any(Region(flow, node, last).crossings()):
            return f"The nearest clean cut has start={calls[node]!r}."
    return "No other end, nor another start, makes it clean: choose a different span."


def _cut(region: Region, start: str, end: str, escaping: tuple[Crossing, ...]) -> Cut:
    """The result, in the graph's order."""
    flow = region.flow
    values = {crossing.value for crossing in escaping}
    kept = flow.ancestors(node for node in region.inner if node.name in values)
    nodes = [node for node in flow.nodes if node in region.nodes - kept]
    entering = {value for node in nodes for value in flow.before[node]} - {region.first}
    return Cut(
        start=start,
        end=end,
        nodes=(region.first.name, region.last.name),
        region=tuple(node.name for node in nodes),
        layers=tuple(_layers(flow, set(nodes), region.private)),
        side_inputs=tuple(n.name for n in flow.nodes if n in entering - region.nodes),
        opaque=tuple(dict.fromkeys(flow.opaque)),
        arguments=tuple(sorted(flow.side_inputs)),
        kept=tuple(map(str, escaping)),
        lost=tuple(_lost_modes(region, set(nodes))),
    )


def _lost_modes(region: Region, going: set[fx.Node]) -> Iterator[str]:
    """``"no_grad (in 'layer')"`` for every operation that stays and was traced in another mode."""
    found = {
        f"{node.meta[MODES]} (in {layer_of(node)!r})": None
        for node in region.flow.nodes
        if node.meta.get(MODES, NO_GRAD) != NO_GRAD and (node not in going or node is region.last)
    }
    yield from found


def _way_out(crossings: tuple[Crossing, ...]) -> str:
    """What a caller may allow; a value that is written in place is never harmless."""
    kinds = {crossing.kind for crossing in crossings}
    if kinds == {"enters"}:
        return (
            " If what enters says where and not what (padding, positions), allow it with "
            f"side_inputs={sorted({crossing.value for crossing in crossings})}."
        )
    if kinds == {"escapes"}:
        return " keep_escapes=True keeps the computation of what escapes."
    return ""


def _layers(flow: Flow, region: set[fx.Node], private: set[fx.Node]) -> Iterator[str]:
    """The layers that go: module calls, or in an exported graph the outermost modules within."""
    staying = {path for node in flow.content - region - private for path in _paths(node)}
    found: dict[str, None] = {}
    for node in (node for node in flow.nodes if node in region):
        if node.op == "call_module":
            yield str(node.target)
        elif isinstance(node.target, OpOverload):
            going = [path for path in _paths(node) if path and path not in staying]
            found.update(dict.fromkeys(going[:1]))
    yield from found


def _paths(node: fx.Node) -> list[str]:
    """The modules in which a node is computed, outermost first."""
    return [str(entry[0]) for entry in node.meta.get("nn_module_stack", {}).values()]
