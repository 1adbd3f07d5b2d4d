"""Reads: whether a node depends on the values in a tensor, or only on what its shape tells."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

from torch._ops import OpOverload

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import fx

# fmt: off
SHAPE_ATTRIBUTES = frozenset({
    "shape", "ndim", "dtype", "device", "layout", "itemsize", "nbytes", "is_cuda", "requires_grad",
})
SHAPE_READS = frozenset({
    "size", "dim", "ndimension", "numel", "nelement", "stride", "element_size", "len", "isinstance",
    "is_floating_point", "is_complex", "is_tensor", "is_contiguous", "get_device",
    "sym_size", "sym_numel", "sym_stride",
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
    if isinstance(node.target, OpOverload):
        return node.target._schema.name.split("::")[-1] in SHAPE_READS
    return getattr(node.target, "__name__", "") in SHAPE_READS


def content_nodes(
    nodes: Iterable[fx.Node],
    before: dict[fx.Node, set[fx.Node]] | None = None,
    side_inputs: frozenset[str] = frozenset(),
) -> set[fx.Node]:
    """The nodes whose value depends on the content of a placeholder.

    Args:
        nodes: in graph order.
        before: node → what it depends on; by default its arguments.
        side_inputs: names of placeholders and other nodes whose content does not count.
    """
    content: set[fx.Node] = set()
    for node in nodes:
        if node.name in side_inputs or (node.op == "placeholder" and node.target in side_inputs):
            continue
        dependencies = before[node] if before is not None else node.all_input_nodes
        if node.op == "placeholder" or (
            not reads_shape(node) and not content.isdisjoint(dependencies)
        ):
            content.add(node)
    return content
