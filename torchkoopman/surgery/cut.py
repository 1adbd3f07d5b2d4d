"""Cuts: the part of a graph between two layers' outputs, and the proof that nothing else crosses.

A module that is to stand for a span sees the output of the span's first layer and gives that of its
last. This is exact only if the last layer's output is a function of the first's, and if nothing
that is computed between them is used elsewhere, be it handed on or written in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchkoopman.surgery.effects import Flow
from torchkoopman.surgery.trace import call_names, trace_span, undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import fx, nn


@dataclass(frozen=True)
class Crossing:
    """A value that crosses the border of a span elsewhere than at its two ends."""

    kind: str
    """``"enters"``, ``"escapes"`` or ``"is written in place"``."""
    value: str
    """Name of the value's node in the graph."""
    layer: str
    """The layer that computes the value, or the nearest one before it."""
    users: tuple[str, ...]
    """Who uses the value across the border, as ``node (layer)``."""

    def __str__(self) -> str:
        return f"{self.value!r} (from {self.layer!r}) {self.kind}: used by {', '.join(self.users)}"


class DirtyCut(ValueError):  # noqa: N818 (named for what it says: the cut is dirty)
    """No module between these two outputs can be exact; :attr:`crossings` says why."""

    def __init__(self, message: str, crossings: tuple[Crossing, ...]) -> None:
        super().__init__(message)
        self.crossings = crossings


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

    def __str__(self) -> str:
        unseen = f"; not looked into: {', '.join(self.opaque)}" if self.opaque else ""
        sides = f"; side inputs: {', '.join(self.side_inputs)}" if self.side_inputs else ""
        return (
            f"clean cut from {self.start!r} to {self.end!r}: {len(self.region)} operations, layers "
            f"{', '.join(self.layers) or 'none'}{sides}{unseen}"
        )


def find_cut(model: nn.Module, start: str, end: str) -> Cut:
    """The cut between the outputs of two layers of a model, if it is clean.

    The model is traced, not run, in its current training mode, and left as it was.

    Args:
        model: any module whose forward torch.fx can trace down to the two layers.
        start: a name of ``model.named_modules()``; ``name#k`` for its k-th call, from 0.
        end: likewise; its output must depend on that of ``start``.

    Raises:
        DirtyCut: a value crosses the border of the span; it is named, with the nearest clean cut.
        ValueError: a layer that does not exist or is called several times, ends in the wrong order.
        RuntimeError: the model cannot be traced.
    """
    with undisturbed(model):
        return cut_graph(model, start, end)[1]


def cut_graph(root: nn.Module, start: str, end: str) -> tuple[fx.Graph, Cut]:
    """As :func:`find_cut`, with the graph; its constants may become attributes of ``root``."""
    if start == end:
        raise ValueError(
            f"start and end are both {start!r}: a span lies between two different layers' outputs. "
            "To replace one layer, start at the layer before it."
        )
    graph, first, last = trace_span(root, start, end)
    flow = Flow(graph, root)
    _check_order(flow, (first, last), (start, end))
    span = _Span(flow, first, last)
    crossings = tuple(span.crossings())
    if crossings:
        listed = "".join(f"\n  {crossing}" for crossing in crossings)
        raise DirtyCut(
            f"a module between the outputs of {start!r} and {end!r} cannot be exact, since values "
            f"cross the border of that span elsewhere:{listed}\n{_nearest(flow, first, last)}",
            crossings,
        )
    return graph, span.cut(start, end)


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


class _Span:
    """The nodes between two nodes of a graph, and what crosses their border."""

    def __init__(self, flow: Flow, first: fx.Node, last: fx.Node) -> None:
        self.flow, self.first, self.last = flow, first, last
        between = flow.descendants(first) & flow.ancestors([last]) - {last}
        self.inner: set[fx.Node] = set()
        """The span without its last node."""
        for node in flow.nodes:  # sizes of the first output stay: they need nothing of the span
            if node in between and (node in flow.content or flow.before[node] & self.inner):
                self.inner.add(node)
        results = [flow.nodes[-1], *(writer for writer, _ in flow.state_writes())]
        self.alive = flow.ancestors(results)
        for node in flow.nodes:  # unused results and assertions go with the values they look at
            if node not in self.alive and flow.before[node] & self.inner:
                self.inner.add(node)
        self.region = self.inner | {last}

    def crossings(self) -> Iterator[Crossing]:
        """Every value that crosses, with all its users."""
        found: dict[tuple[str, fx.Node], set[fx.Node]] = {}
        for kind, value, user in (*self._handed(), *self._written()):
            found.setdefault((kind, value), set()).add(user)
        for (kind, value), users in found.items():
            ordered = sorted(users, key=self.flow.order.__getitem__)
            yield Crossing(kind, value.name, _layer(value), tuple(map(_user, ordered)))

    def cut(self, start: str, end: str) -> Cut:
        """The result, in the graph's order."""
        flow, region = self.flow, [node for node in self.flow.nodes if node in self.region]
        entering = {value for node in region for value in flow.before[node]} - {self.first}
        return Cut(
            start=start,
            end=end,
            nodes=(self.first.name, self.last.name),
            region=tuple(node.name for node in region),
            layers=tuple(str(node.target) for node in region if node.op == "call_module"),
            side_inputs=tuple(n.name for n in flow.nodes if n in entering - self.region),
            opaque=tuple(dict.fromkeys(flow.opaque)),
        )

    def _handed(self) -> Iterator[tuple[str, fx.Node, fx.Node]]:
        """Values handed over the border as arguments."""
        for node in self.flow.nodes:
            for value in node.all_input_nodes:
                if node not in self.region and value in self.inner:
                    yield "escapes", value, node
                outside = value not in self.region and value is not self.first
                if node in self.region and outside and value in self.flow.content:
                    yield "enters", value, node

    def _written(self) -> Iterator[tuple[str, fx.Node, fx.Node]]:
        """Values that a reader would find written to no longer, or find written to only now."""
        flow, later = self.flow, self.flow.descendants(self.last) | {self.last}
        for edge in flow.memory:
            if edge.writer is self.first or edge.reader not in self.alive:
                continue
            crosses = (edge.writer in self.region) != (edge.reader in self.region)
            outside = edge.writer not in self.region and edge.reader not in self.region
            # the last output shares memory with an older value: its replacement will not
            severed = outside and (edge.written in later) != (edge.read in later)
            if crosses or (severed and flow.shared(edge.read, self.last)):
                yield "is written in place", edge.read, edge.reader
        for writer, held in flow.state_writes():
            if writer in self.region:
                yield "is written in place", held, writer


def _nearest(flow: Flow, first: fx.Node, last: fx.Node) -> str:
    """The nearest other end that makes the cut clean, else the nearest other start."""
    calls = dict(call_names(flow.nodes))
    following, leading = flow.descendants(first), flow.ancestors([last])

    def nearby(nodes: Iterable[fx.Node], to: fx.Node) -> list[fx.Node]:
        return sorted(nodes, key=lambda node: abs(flow.order[node] - flow.order[to]))

    for node in nearby((n for n in calls if n in following), last):
        if not any(_Span(flow, first, node).crossings()):
            return f"The nearest clean cut has end={calls[node]!r}."
    for node in nearby((n for n in calls if n in leading and n is not last), first):
        if not any(_Span(flow, node, last).crossings()):
            return f"The nearest clean cut has start={calls[node]!r}."
    return "No other end, nor another start, makes it clean: choose a different span."


def _layer(node: fx.Node) -> str:
    """The module that computes a node: itself, the innermost opened one, or the nearest before."""
    stack = node.meta.get("nn_module_stack")
    if node.op in {"call_module", "get_attr", "placeholder"} or not (stack or node.all_input_nodes):
        return str(node.target)
    if stack:
        return str(next(reversed(stack.values()))[0])
    return _layer(node.all_input_nodes[0])


def _user(node: fx.Node) -> str:
    return "the model's output" if node.op == "output" else f"{node.name!r} (in {_layer(node)!r})"
