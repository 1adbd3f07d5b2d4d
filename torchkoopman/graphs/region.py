"""Regions: the nodes of a graph between two of them, and every value that crosses their border."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import fx

    from torchkoopman.graphs.aliasing import Flow


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
        source = repr(self.layer) if self.layer else "the model's own forward"
        return f"{self.value!r} (from {source}) {self.kind}: used by {', '.join(self.users)}"


class DirtyCut(ValueError):  # noqa: N818 (named for what it says: the cut is dirty)
    """No module between these two outputs can be exact; ``crossings`` says which values prevent it.

    Its message names the nearest clean cut.

    Example:
        >>> block = torch.nn.TransformerEncoderLayer(8, 2, 16).eval()  # x + linear2(linear1(x))
        >>> x = torch.zeros(5, 2, 8)
        >>> tk.swap(block, torch.nn.Linear(16, 8), "linear1", "norm2", example_inputs=x)
        Traceback (most recent call last):
            ...
        torchkoopman.graphs.region.DirtyCut: a module between the outputs of 'linear1' and 'norm2'
          cannot be exact, ... 'layer_norm' (from 'norm1') enters: used by 'add_1' ...
    """

    crossings: tuple[Crossing, ...]
    """The values that cross the border of the span elsewhere than at its ends."""

    def __init__(self, message: str, crossings: tuple[Crossing, ...]) -> None:
        super().__init__(message)
        self.crossings = crossings


class Region:
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
        self.nodes = self.inner | {last}
        self.private = self._private()
        """What is computed outside of the span for its sake alone."""

    def _private(self) -> set[fx.Node]:
        found: set[fx.Node] = set()
        writers = {writer for writer, _ in self.flow.writes}
        for node in reversed(self.flow.nodes):
            readers = self.flow.after[node]
            computed = node.op not in {"placeholder", "get_attr"} and node not in writers
            outside = node not in self.nodes and node is not self.first
            if computed and outside and readers and readers <= self.nodes | found:
                found.add(node)
        return found

    def crossings(self) -> Iterator[Crossing]:
        """Every value that crosses, with all its users."""
        found: dict[tuple[str, fx.Node], set[fx.Node]] = {}
        for kind, value, user in (*self._handed(), *self._written()):
            found.setdefault((kind, value), set()).add(user)
        for (kind, value), users in found.items():
            ordered = sorted(users, key=self.flow.order.__getitem__)
            yield Crossing(kind, value.name, layer_of(value), tuple(map(_user, ordered)))

    def _handed(self) -> Iterator[tuple[str, fx.Node, fx.Node]]:
        """Values handed over the border as arguments."""
        for node in self.flow.nodes:
            for value in node.all_input_nodes:
                if node not in self.nodes and value in self.inner:
                    yield "escapes", value, node
                outside = value not in self.nodes and value is not self.first
                if node in self.nodes and outside and value in self.flow.content:
                    for origin in self._origins(value) - {self.first}:
                        yield "enters", origin, node

    def _origins(self, value: fx.Node) -> set[fx.Node]:
        """Where a value comes from that nothing but the span uses, a key projection, say."""
        if value not in self.private:
            return {value}
        sources = [node for node in value.all_input_nodes if node in self.flow.content]
        return set().union(*(self._origins(node) for node in sources))

    def _written(self) -> Iterator[tuple[str, fx.Node, fx.Node]]:
        """Values that a reader would find written to no longer, or find written to only now."""
        flow, later = self.flow, self.flow.descendants(self.last) | {self.last}
        for edge in flow.memory:
            if edge.writer is self.first or edge.reader not in self.alive:
                continue
            crosses = (edge.writer in self.nodes) != (edge.reader in self.nodes)
            outside = edge.writer not in self.nodes and edge.reader not in self.nodes
            # the last output shares memory with an older value: its replacement will not
            severed = outside and (edge.written in later) != (edge.read in later)
            if crosses or (severed and flow.shared(edge.read, self.last)):
                yield "is written in place", edge.read, edge.reader
        for writer, held in flow.state_writes():
            if writer in self.nodes:
                yield "is written in place", held, writer


def layer_of(node: fx.Node) -> str:
    """The module that computes a node: itself, the innermost opened one, or the nearest before."""
    stack = node.meta.get("nn_module_stack")
    if node.op in {"call_module", "get_attr", "placeholder"} or not (stack or node.all_input_nodes):
        return str(node.target)
    if stack:
        return str(next(reversed(stack.values()))[0])
    return layer_of(node.all_input_nodes[0])


def _user(node: fx.Node) -> str:
    if node.op == "output":
        return "the model's output"
    layer = layer_of(node)
    return f"{node.name!r} (in {layer!r})" if layer else f"{node.name!r} (in the model's forward)"
