"""Effects: which values a node of a graph writes to, and with which it shares memory.

Data flow alone does not say what a node reads: after ``h.relu_()`` every later reader of ``h``, or
of a view of it, depends on that write. :class:`Flow` is the graph with those edges added.
"""

from __future__ import annotations

import builtins
import operator
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn
from torch._ops import HigherOrderOperator, OpOverload

from torchkoopman.graphs.alike import likeness
from torchkoopman.graphs.content import content_nodes, reads_shape
from torchkoopman.graphs.memory import MemoryEdge, at, closure
from torchkoopman.graphs.schemas import (
    OPAQUE,
    SHARES_FIRST,
    WRITES_ALL,
    WRITES_FIRST,
    Effect,
    Places,
    schema_effect,
    torch_effect,
)
from torchkoopman.graphs.side_effects import plain_tracing
from torchkoopman.graphs.trace import SpanTracer
from torchkoopman.graphs.undisturbed import undisturbed
from torchkoopman.graphs.writing import may_write
from torchkoopman.observe.facts import alike, attributes

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from torchkoopman.observe.facts import Facts

VIEWING_MODULES = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)
"""Modules of torch.nn that may return their input itself, or a view of it."""


class Flow:
    """Who depends on whom in a graph, by data and through memory.

    Args:
        graph: a traced or exported graph.
        root: what its targets are attributes of.
        side_inputs: names of placeholders and values that say where, not what.
    """

    def __init__(
        self, graph: fx.Graph, root: nn.Module, side_inputs: frozenset[str] = frozenset()
    ) -> None:
        self.nodes = list(graph.nodes)
        self.side_inputs = side_inputs
        self.order = {node: index for index, node in enumerate(self.nodes)}
        self.opaque: list[str] = []
        """Modules and functions whose effects could not be found out."""
        self._class: dict[fx.Node, fx.Node] = {}
        self._effects: dict[Hashable, Effect] = {}
        """Results for layers already examined, by what they share with layers like them."""
        self.writes: list[tuple[fx.Node, fx.Node]] = []
        """(writer, written value), in order."""
        for node in self.nodes:
            self._add(node, root)
        self.memory = list(self._edges())
        self.before = {node: set(node.all_input_nodes) for node in self.nodes}
        for edge in self.memory:
            self.before[edge.reader].add(edge.writer)
        self.after: dict[fx.Node, set[fx.Node]] = {node: set() for node in self.nodes}
        for node, dependencies in self.before.items():
            for dependency in dependencies:
                self.after[dependency].add(node)
        self.content = content_nodes(self.nodes, self.before, side_inputs)
        """Nodes whose value depends on the content of the model's inputs, not only on shapes."""

    def descendants(self, node: fx.Node) -> set[fx.Node]:
        """All nodes that depend on ``node``."""
        return closure([node], self.after) - {node}

    def ancestors(self, nodes: Iterable[fx.Node]) -> set[fx.Node]:
        """All nodes that ``nodes`` depend on, and they themselves."""
        return closure(nodes, self.before)

    def shared(self, node: fx.Node, other: fx.Node) -> bool:
        """Whether two values may share memory."""
        return self._find(node) is self._find(other)

    def state_writes(self) -> list[tuple[fx.Node, fx.Node]]:
        """(writer, buffer or parameter) for the writes that outlive the forward pass."""
        state = [node for node in self.nodes if node.op == "get_attr"]
        return [
            (writer, held)
            for writer, written in self.writes
            for held in state
            if self.shared(written, held)
        ]

    def _add(self, node: fx.Node, root: nn.Module) -> None:
        self._class[node] = node
        if node.op == "get_attr":
            same = (n for n in self._class if n.op == "get_attr" and n.target == node.target)
            self._class[node] = self._find(next(same))
        effect = effect_of(node, root, self._effects)
        if not effect.known:
            self.opaque.append(str(node.target) if node.op == "call_module" else node.name)
        for value in at(node, effect.writes):
            self.writes.append((node, value))
        shares = effect.shares | effect.writes
        for value in at(node, shares) if effect.known else node.all_input_nodes:
            self._class[self._find(value)] = self._find(node)

    def _find(self, node: fx.Node) -> fx.Node:
        while self._class[node] is not node:
            node = self._class[node]
        return node

    def _edges(self) -> Iterable[MemoryEdge]:
        for writer, written in self.writes:
            for reader in self.nodes[self.order[writer] + 1 :]:
                if reads_shape(reader):
                    continue
                for read in reader.all_input_nodes:
                    if self.order[read] < self.order[writer] and self.shared(read, written):
                        yield MemoryEdge(writer, written, reader, read)


def effect_of(
    node: fx.Node, root: nn.Module, known: dict[Hashable, Effect] | None = None
) -> Effect:
    """What a node does to the memory of its arguments.

    Args:
        node: of a graph.
        root: what its targets are attributes of.
        known: the effects of layers by their :func:`likeness`; what is found out is added.
    """
    if node.target == "_guards_fn":  # torch.export's checks of the input sizes
        return Effect()
    if node.op == "call_module":
        return _module_effect(root.get_submodule(str(node.target)), {} if known is None else known)
    if node.op == "call_method":
        return torch_effect(str(node.target)) or SHARES_FIRST
    if node.op != "call_function" or reads_shape(node):
        return Effect()
    function: Any = node.target
    if isinstance(function, OpOverload):
        return schema_effect(function)
    if isinstance(function, HigherOrderOperator):
        return OPAQUE
    name = getattr(function, "__name__", "")
    home = str(getattr(function, "__module__", None) or "torch")
    if home == "_operator":
        if name in _WRITING_OPERATORS:
            return WRITES_FIRST
        return SHARES_FIRST if name == "getitem" else Effect()
    if function is builtins.getattr:
        return SHARES_FIRST
    if not home.startswith(("torch", "math", "builtins")):
        return OPAQUE
    if node.kwargs.get("inplace"):
        return WRITES_FIRST
    if "dropout" in name:  # returns its input in eval mode
        return SHARES_FIRST
    return torch_effect(name) or Effect()


_WRITING_OPERATORS = frozenset(
    name
    for name in dir(operator)
    if name == "setitem" or (name[0] == "i" and {name[1:], f"{name[1:]}_"} & set(dir(operator)))
)


def _module_effect(module: nn.Module, known: dict[Hashable, Effect]) -> Effect:
    """The effect of calling a module: known for torch.nn, else found by tracing its inside."""
    tracer = SpanTracer()
    if tracer.is_leaf_module(module, ""):
        if getattr(module, "inplace", False):
            return WRITES_FIRST
        return SHARES_FIRST if isinstance(module, VIEWING_MODULES) else Effect()
    kind = likeness(module)
    if kind is None:
        return _traced_effect(module, tracer)
    if kind not in known:
        known[kind] = _traced_effect(module, tracer)
    return known[kind]


def _traced_effect(module: nn.Module, tracer: SpanTracer) -> Effect:
    """The effect of calling a module that can be looked into."""
    with undisturbed(module) as changed, plain_tracing():
        before = attributes(module)
        try:
            flow = Flow(tracer.trace(module), module)
        except Exception:  # runs the user's Python on proxies: anything may come
            return WRITES_ALL if may_write(module) else OPAQUE
        wrote = _restored(module, before)
    kept = [name for name in changed if not name.startswith("_tensor_constant")]
    if wrote or kept:
        return OPAQUE
    inputs = [node for node in flow.nodes if node.op == "placeholder"]
    if any(str(node.target).startswith("*") for node in inputs):
        return OPAQUE
    returned = flow.nodes[-1].all_input_nodes
    written = [value for _, value in flow.writes]
    return Effect(
        _places(flow, inputs, written),
        _places(flow, inputs, returned),
        known=not flow.opaque,
    )


def _restored(module: nn.Module, before: Facts) -> bool:
    """Whether a trace wrote into the buffers of a module, which get their values back."""
    wrote = False
    for name, buffer in module.named_buffers():
        known = name in before and isinstance(buffer, Tensor)
        if known and not alike(buffer, before[name]):
            buffer.data.copy_(before[name])
            wrote = True
    return wrote


def _places(flow: Flow, inputs: list[fx.Node], values: list[fx.Node]) -> Places:
    """The arguments whose memory some of ``values`` may share."""
    return frozenset(
        place
        for position, argument in enumerate(inputs)
        if any(flow.shared(argument, value) for value in values)
        for place in (position, str(argument.target))
    )
