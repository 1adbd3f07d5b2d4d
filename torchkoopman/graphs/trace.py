"""Tracing: a model becomes a graph in which the two ends of a span are nodes.

Only the modules that contain an end are opened; every other one stays a single node, so its code
need not be traceable, its name stays the user's, and a later swap still finds it. Tracing runs the
Python of the opened modules once: whatever it does there that no graph holds is found and refused.
"""

from __future__ import annotations

import operator
import weakref
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from torchkoopman.graphs.content import content_nodes
from torchkoopman.graphs.frozen import Frozen
from torchkoopman.graphs.nodes import Traced, labelled, labelled_node, output_node
from torchkoopman.graphs.side_effects import (
    Settings,
    SideEffect,
    describe_modes,
    modes,
    refuse_unseen,
    without_side_effects,
)
from torchkoopman.observe.names import named_module, which_call
from torchkoopman.observe.places import filled, leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torchkoopman.observe.places import Place

MODES = "torchkoopman.modes"
"""Key of ``Node.meta``: the mode, other than at the beginning, under which the node was traced."""
IN_PLACE: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "__iadd__": ("add_", operator.add),
    "__isub__": ("sub_", operator.sub),
    "__imul__": ("mul_", operator.mul),
    "__itruediv__": ("div_", operator.truediv),
    "__ifloordiv__": ("floor_divide_", operator.floordiv),
    "__imod__": ("remainder_", operator.mod),
    "__ipow__": ("pow_", operator.pow),
    "__iand__": ("bitwise_and_", operator.and_),
    "__ior__": ("bitwise_or_", operator.or_),
    "__ixor__": ("bitwise_xor_", operator.xor),
}
"""What ``x += y`` is for a tensor (it writes) and for a size (it does not)."""


class SpanProxy(fx.Proxy):
    """A proxy that remembers writes: torch.fx itself traces ``x += y`` as ``x = x + y``."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("tracer", "node") and not name.startswith("_"):
            raise SideEffect(
                f"the model's forward sets the attribute {name!r} of {self.node.name!r}, and a "
                "graph would not: swap with how='eager'."
            )
        super().__setattr__(name, value)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})


def _augmented(method: str, plain: Callable[[Any, Any], Any]) -> Callable[[fx.Proxy, Any], Any]:
    def augment(self: fx.Proxy, other: Any) -> Any:
        if self.node in content_nodes(self.node.graph.nodes):
            return getattr(self, method)(other)
        return plain(self, other)

    return augment


for _name, (_method, _plain) in IN_PLACE.items():
    setattr(SpanProxy, _name, _augmented(_method, _plain))


class SpanTracer(fx.Tracer):
    """A tracer that opens some modules only and notes what the watched ones return.

    Without arguments, as unpickling makes it, it opens what torch.fx opens.
    """

    def __init__(
        self,
        opened: frozenset[nn.Module] | None = None,
        watched: frozenset[nn.Module] = frozenset(),
    ) -> None:
        super().__init__()
        self.opened = opened
        self.watched = watched
        self.outputs: dict[nn.Module, list[Any]] = {}
        """Watched module → what each call returned, with proxies for its values."""
        self.failed: str | None = None
        """The deepest module in which the trace stopped."""
        self.modes = modes()
        """The modes in which the trace began."""
        self.watch: Settings | None = None
        """What is set for layers otherwise than at the beginning is refused."""
        self.proxies: weakref.WeakSet[fx.Proxy] = weakref.WeakSet()
        """All values of the trace that somebody still holds."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether ``m`` stays one node."""
        if self.opened is None:
            return super().is_leaf_module(m, module_qualified_name)
        return m not in self.opened

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Trace one call. Not through ``forward``, which would hand proxies to the user's hooks."""
        if self.watch is not None and self.opened is not None and m not in self.opened:
            self.watch.refuse_changes(m, self.path_of_module(m))
        try:
            result = super().call_module(m, m.forward, args, kwargs)
        except Exception:
            self.failed = self.failed or self.path_of_module(m)
            raise
        if m in self.watched:
            returned = result
            for place, leaf in list(leaves(result)):
                if isinstance(leaf, fx.Proxy):  # held here, so not counted among those held
                    result = filled(result, place, fx.Proxy(leaf.node, self))
            self.outputs.setdefault(m, []).append(result)
            return returned
        return result

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """The value that stands for ``node`` while the model's Python runs."""
        proxy = SpanProxy(node, self)
        self.proxies.add(proxy)
        return proxy

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """A node; where other modes hold than at the beginning, it remembers which."""
        node = super().create_node(*args, **kwargs)
        if self.modes != modes():
            node.meta[MODES] = describe_modes(self.modes, modes())
        return node


def trace_span(
    root: nn.Module, start: str, end: str, places: Mapping[str, Place] | None = None
) -> Traced:
    """The graph of ``root`` with the nodes of the outputs of the layers ``start`` and ``end``.

    Constant tensors found in ``root``'s forward become attributes of ``root``, as torch.fx does it.
    A graph that torch.export made for an earlier swap is taken as it is.

    Args:
        root: the model; traced in its current training mode.
        start: a name of ``root.named_modules()``, or ``name#k`` for its k-th call, from 0.
        end: likewise.
        places: where in the two layers' outputs their states are; found out where not given.

    Raises:
        ValueError: no such layer, one that is never called, or called several times and no ``#k``.
        RuntimeError: the model cannot be traced.
    """
    known = labelled(root)
    if known is not None:
        graph, nodes = known
        return Traced(root, graph, labelled_node(nodes, start), labelled_node(nodes, end))
    ends = frozenset(named_module(root, name) for name in (start, end))
    opened = frozenset(module for module in root.modules() if _contains(module, ends))
    refuse_unseen(root, opened)
    tracer = SpanTracer(opened, ends)
    try:
        graph, numbers = _traced(tracer, root)
    except SideEffect:
        raise
    except Exception as error:  # a trace runs the user's Python on proxies: anything may come
        where = f"in {tracer.failed!r}" if tracer.failed else "in its own forward"
        first = (str(error).splitlines() or [""])[0]
        raise RuntimeError(
            f"{type(root).__name__} cannot be traced by torch.fx {where}: "
            f"{type(error).__name__}: {first.rstrip('.')}. Only the modules that contain {start!r} "
            f"or {end!r} are opened: move the branching or the unsupported call into a submodule "
            "of its own, mark a function with torch.fx.wrap, or swap inside a submodule that can "
            "be traced."
        ) from error
    first_node, last_node = (
        output_node(graph, _result(root, tracer, layer), (places or {}).get(layer), layer)
        for layer in (start, end)
    )
    return Traced(root, graph, first_node, last_node, numbers)


def _contains(module: nn.Module, ends: frozenset[nn.Module]) -> bool:
    return any(child in ends for child in module.modules() if child is not module)


def _result(root: nn.Module, tracer: SpanTracer, layer: str) -> Any:
    """What the chosen call returned."""
    outputs = tracer.outputs.get(named_module(root, layer), [])
    return outputs[which_call(root, layer, len(outputs))]


def _traced(tracer: SpanTracer, root: nn.Module) -> tuple[fx.Graph, frozenset[int]]:
    """The graph, and `Traced.numbers`; all that the Python run for it reaches is as before."""
    constants: dict[str, Any] = {}
    with without_side_effects(root, constants, tracer.proxies) as surroundings:
        tracer.modes = modes()
        tracer.watch = Settings(root, surroundings)
        with Frozen(root) as frozen:
            graph = tracer.trace(root)
        for node in graph.nodes:
            if isinstance(node.type, str):  # an annotation as text, which cannot be pickled
                node.type = None
        held = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
        constants |= {name: value for name, value in vars(root).items() if name in held}
        frozen.refuse(constants.values())
    vars(root).update(constants)
    return graph, frozenset(frozen.numbers)
