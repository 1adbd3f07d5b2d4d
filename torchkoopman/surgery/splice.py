"""Splicing: a module is put in place of a clean cut, and the wiring is proven by a replay."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from torchkoopman.surgery.cut import Cut, cut_graph
from torchkoopman.surgery.record import SwappedModule, swapped_module
from torchkoopman.surgery.trace import named_module, split_call

if TYPE_CHECKING:
    from collections.abc import Sequence


def splice(
    root: nn.Module, graph: fx.Graph, cut: Cut, module: nn.Module
) -> tuple[SwappedModule, str]:
    """Put ``module`` in place of a cut's region.

    Args:
        root: the module that was traced; it gets ``module`` as a submodule.
        graph: its graph, which is edited.
        cut: what goes.
        module: from the output of the cut's start to that of its end.

    Returns:
        The edited model, on the submodules of ``root`` that it still calls, and ``module``'s name.
    """
    nodes = {node.name: node for node in graph.nodes}
    first, last = (nodes[name] for name in cut.nodes)
    plain = "koopman_" + re.sub(r"\W+", "_", f"{cut.start}_to_{cut.end}")
    names = (plain, *(f"{plain}_{count}" for count in range(2, 1000)))
    name = next(name for name in names if not hasattr(root, name))
    root.add_module(name, module)
    with graph.inserting_after(first):  # right here: nobody has written into the first output yet
        new = graph.call_module(name, (first,))
    last.replace_all_uses_with(new)
    for node in reversed([nodes[name] for name in cut.region]):
        graph.erase_node(node)
    for node in reversed([nodes[name] for name in cut.side_inputs]):
        if not node.users and node.op != "placeholder":
            graph.erase_node(node)
    graph.lint()
    return swapped_module(root, graph, type(root).__name__), name


@torch.no_grad()
def replay(model: nn.Module, cut: Cut, example_inputs: Tensor | Sequence[Any]) -> Any:
    """Run the edited wiring in eval mode, with the recorded output of ``cut.end`` for the module.

    It must return what the model returns, bit by bit: so wiring and a poor module are not confused.

    Args:
        model: the model before the swap; copied.
        cut: the cut, which is made again on a copy.
        example_inputs: the model's positional arguments, or its one tensor.

    Returns:
        The recorded output.

    Raises:
        RuntimeError: the edited model fails, or returns something else.
    """
    arguments = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    devices = [value.device for value in arguments if isinstance(value, Tensor) and value.is_cuda]
    reference, root = copy.deepcopy(model).eval(), copy.deepcopy(model).eval()
    name, call = split_call(cut.end)
    seen: list[Any] = []
    hook = named_module(reference, name).register_forward_hook(
        lambda module, inputs, output: seen.append(_cloned(output))
    )
    with torch.random.fork_rng(devices):
        expected = pytree.tree_leaves(reference(*_cloned(arguments)))
    hook.remove()
    output = seen[call or 0]
    edited, _ = splice(root, *cut_graph(root, cut.start, cut.end), _Recorded(output))
    try:
        with torch.random.fork_rng(devices):
            found = pytree.tree_leaves(edited(*_cloned(arguments)))
    except Exception as error:  # runs the user's code
        raise RuntimeError(
            f"the model swapped from {cut.start!r} to {cut.end!r} fails on the example inputs: "
            f"{type(error).__name__}: {error} A graph takes every argument as given, also an "
            "optional one: pass all that its forward can take, or set the default in a wrapper."
        ) from error
    if len(found) != len(expected) or not all(map(_equal, found, expected)):
        raise RuntimeError(
            f"swapping from {cut.start!r} to {cut.end!r} changes the model even with the recorded "
            f"output of {cut.end!r} in place, so something crosses that the graph does not show: a "
            "layer that writes into its input or keeps a state, a hook, a context manager, or "
            f"randomness in eval mode. Not looked into: {', '.join(cut.opaque) or 'nothing'}. "
            "Choose a span without it."
        )
    return output


class _Recorded(nn.Module):
    """Returns a recorded value, whatever comes in."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, output: Any) -> Any:
        return _cloned(self.value)


def _equal(value: Any, other: Any) -> bool:
    return torch.equal(value, other) if isinstance(value, Tensor) else bool(value == other)


def _cloned(value: Any) -> Any:
    return pytree.tree_map_only(Tensor, torch.clone, value)
