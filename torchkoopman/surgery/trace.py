"""Tracing: a model becomes a graph in which the two ends of a span are nodes.

Only the modules that contain an end are opened; every other one stays a single node, so its code
need not be traceable, its name stays the user's, and a later swap still finds it.
"""

from __future__ import annotations

import builtins
import contextlib
import copy
import difflib
import operator
from typing import TYPE_CHECKING, Any

from torch import fx, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# fmt: off
SHAPE_ATTRIBUTES = frozenset({
    "shape", "ndim", "dtype", "device", "layout", "itemsize", "nbytes", "is_cuda", "requires_grad",
})
SHAPE_READS = frozenset({
    "size", "dim", "ndimension", "numel", "nelement", "stride", "element_size", "len", "isinstance",
    "is_floating_point", "is_complex", "is_tensor", "is_contiguous", "get_device",
    "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like",
    "new_zeros", "new_ones", "new_empty", "new_full",
})
"""Functions and methods whose result does not depend on the values in a tensor."""
# fmt: on


def reads_shape(node: fx.Node) -> bool:
    """Whether a node reads of its tensors only what all tensors of their shape have in common."""
    if node.op == "call_method":
        return node.target in SHAPE_READS
    if node.op != "call_function":
        return False
    if node.target is builtins.getattr:
        return node.args[1] in SHAPE_ATTRIBUTES
    return getattr(node.target, "__name__", "") in SHAPE_READS


def content_nodes(
    nodes: Iterable[fx.Node], before: dict[fx.Node, set[fx.Node]] | None = None
) -> set[fx.Node]:
    """The nodes whose value depends on the content of a placeholder; ``nodes`` in graph order."""
    content: set[fx.Node] = set()
    for node in nodes:
        dependencies = before[node] if before is not None else node.all_input_nodes
        if node.op == "placeholder" or (
            not reads_shape(node) and not content.isdisjoint(dependencies)
        ):
            content.add(node)
    return content


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
        self.outputs: dict[nn.Module, list[fx.Node | None]] = {}
        """Watched module → the node of each call's output; None for one that is not one value."""
        self.failed: str | None = None
        """The deepest module in which the trace stopped."""

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
        try:
            result = super().call_module(m, m.forward, args, kwargs)
        except Exception:
            self.failed = self.failed or self.path_of_module(m)
            raise
        if m in self.watched:
            node = result.node if isinstance(result, fx.Proxy) else None
            self.outputs.setdefault(m, []).append(node)
        return result

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """The value that stands for ``node`` while the model's Python runs."""
        return SpanProxy(node, self)


def trace_span(root: nn.Module, start: str, end: str) -> tuple[fx.Graph, fx.Node, fx.Node]:
    """The graph of ``root`` and the nodes of the outputs of the layers ``start`` and ``end``.

    Constant tensors found in ``root``'s forward become attributes of ``root``, as torch.fx does it.

    Args:
        root: the model; traced in its current training mode.
        start: a name of ``root.named_modules()``, or ``name#k`` for its k-th call, from 0.
        end: likewise.

    Raises:
        ValueError: no such layer, one that is never called, or called several times and no ``#k``.
        RuntimeError: the model cannot be traced.
    """
    ends = frozenset(named_module(root, name) for name in (start, end))
    opened = frozenset(module for module in root.modules() if _contains(module, ends))
    tracer = SpanTracer(opened, ends)
    try:
        with undisturbed(root):
            graph = tracer.trace(root)
            held = {node.target for node in graph.nodes if node.op == "get_attr"}
            constants = {name: value for name, value in vars(root).items() if name in held}
        vars(root).update(constants)
    except Exception as error:  # a trace runs the user's Python on proxies: anything may come
        where = f"in {tracer.failed!r}" if tracer.failed else "in its own forward"
        first = (str(error).splitlines() or [""])[0]
        raise RuntimeError(
            f"{type(root).__name__} cannot be traced by torch.fx {where}: "
            f"{type(error).__name__}: {first} Only the modules that contain {start!r} or {end!r} "
            "are opened: move the branching or the unsupported call into a submodule of its own, "
            "mark a function with torch.fx.wrap, or swap inside a submodule that can be traced."
        ) from error
    return graph, _output(root, tracer, start), _output(root, tracer, end)


@contextlib.contextmanager
def undisturbed(root: nn.Module) -> Iterator[None]:
    """Give all modules back the attributes they had: a forward that keeps a value kept a proxy."""
    attributes = [vars(module) for module in root.modules()]
    holders = [value for held in attributes for value in held.values()]
    containers = [value for value in holders if isinstance(value, dict | list | set)]
    saved = [(container, copy.copy(container)) for container in (*attributes, *containers)]
    try:
        yield
    finally:
        for container, before in saved:
            container.clear()
            container.extend(before) if isinstance(container, list) else container.update(before)


def _contains(module: nn.Module, ends: frozenset[nn.Module]) -> bool:
    return any(child in ends for child in module.modules() if child is not module)


def split_call(layer: str) -> tuple[str, int | None]:
    """``"name#k"`` → ``("name", k)``; a bare name has ``None``."""
    name, mark, call = layer.partition("#")
    if mark and not call.isdecimal():
        raise ValueError(
            f"layer {layer!r}: what follows '#' is {call!r}, not the number of a call."
        )
    return name, int(call) if mark else None


def named_module(root: nn.Module, layer: str) -> nn.Module:
    """The module a layer's name stands for; all its names are accepted, also of a shared module."""
    name, _ = split_call(layer)
    modules: dict[str, nn.Module] = dict(root.named_modules(remove_duplicate=False))
    modules.pop("", None)
    if name not in modules:
        near = difflib.get_close_matches(name, modules, n=3, cutoff=0.3) or list(modules)[:3]
        raise ValueError(
            f"{type(root).__name__} has no layer {name!r}; nearest: "
            f"{', '.join(map(repr, near)) or 'none'}. Layers are those of model.named_modules()."
        )
    return modules[name]


def _output(root: nn.Module, tracer: SpanTracer, layer: str) -> fx.Node:
    """The node of the chosen call's output."""
    name, call = split_call(layer)
    outputs = tracer.outputs.get(named_module(root, layer), [])
    if not outputs:
        raise ValueError(
            f"layer {name!r} is never called in {type(root).__name__}'s forward: its weights may "
            "be used without calling it, or an earlier swap opened it. Choose one that is called."
        )
    calls = ", ".join(repr(f"{name}#{index}") for index in range(len(outputs)))
    if call is None and len(outputs) > 1:
        raise ValueError(f"layer {name!r} is called {len(outputs)} times; choose one of {calls}.")
    if (call or 0) >= len(outputs):
        raise ValueError(f"layer {layer!r}: {name!r} is called {len(outputs)} times only: {calls}.")
    node = outputs[call or 0]
    if node is None:
        raise ValueError(
            f"layer {layer!r} does not return one value, and a module can only stand for one: "
            "choose a layer inside it or after it."
        )
    return node


def call_names(graph_nodes: Iterable[fx.Node]) -> Iterator[tuple[fx.Node, str]]:
    """Every module call of a graph with the name that selects it, in order of execution."""
    nodes = [node for node in graph_nodes if node.op == "call_module"]
    targets = [str(node.target) for node in nodes]
    for index, (node, target) in enumerate(zip(nodes, targets, strict=True)):
        call = targets[:index].count(target)
        yield node, f"{target}#{call}" if targets.count(target) > 1 else target
