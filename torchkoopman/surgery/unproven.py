"""Swaps without example inputs: nothing is run, so what the graph does not show is refused."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from torchkoopman.graphs.side_effects import hooks_of, hooks_of_all
from torchkoopman.observe.views import View

if TYPE_CHECKING:
    from torch import nn

    from torchkoopman.graphs.cut import Cut
    from torchkoopman.graphs.nodes import Traced
    from torchkoopman.surgery.request import SwapRequest


RANDOM = ("drop", "rand", "bernoulli", "normal_", "uniform_", "multinomial")
"""Parts of the names of what draws random numbers."""


def refuse_unproven(traced: Traced, cut: Cut, request: SwapRequest, root: nn.Module) -> None:
    """Refuse what the graph alone does not show to be harmless.

    Raises:
        RuntimeError: it says what, and that example inputs would show it.
    """
    _refuse_opaque(cut, root)
    _refuse_containers(traced, request)
    _refuse_draws(traced, cut, request)


def _refuse_opaque(cut: Cut, root: nn.Module) -> None:
    """Without example inputs there is no replay: refuse what the graph alone does not show."""
    hooked = [name for name, module in root.named_modules() if hooks_of(module)]
    of_all = [getattr(hook, "__qualname__", type(hook).__name__) for hook in hooks_of_all()]
    found = (
        (cut.opaque, "cannot be looked into"),
        (cut.lost, "is lost in a graph"),
        (hooked, "has hooks"),
        (of_all, "is a hook on all modules"),
    )
    for names, what in found:
        if names:
            raise RuntimeError(
                f"without example_inputs nothing is run, and the graph does not show whether the "
                f"swap is exact: {', '.join(map(repr, names[:5]))} {what}. Give example_inputs."
            )


def _refuse_containers(traced: Traced, request: SwapRequest) -> None:
    """Refuse a layer of which items are taken: nothing was run to see whether it is a tensor."""
    for layer, node in ((request.start, traced.first), (request.end, traced.last)):
        items = [user for user in node.users if user.target is operator.getitem]
        if items and not isinstance(request.known.get(layer), View):
            raise RuntimeError(
                f"without example_inputs nothing is run, and the model takes items of what "
                f"{layer!r} returns, which may be a tensor or hold several. Give example_inputs."
            )


def _refuse_draws(traced: Traced, cut: Cut, request: SwapRequest) -> None:
    """Refuse a span that draws random numbers in training: what is drawn after it would shift."""
    if not request.model.training:
        return
    nodes = [node for node in traced.graph.nodes if node.name in cut.region]
    layers = [traced.root.get_submodule(str(n.target)) for n in nodes if n.op == "call_module"]
    kinds = [type(each).__name__ for layer in layers for each in layer.modules()]
    names = [*kinds, *(str(node.target) for node in nodes if node.op != "call_module")]
    drawing = [name for name in names if any(word in name.lower() for word in RANDOM)]
    if drawing:
        raise RuntimeError(
            f"{drawing[0]} in the span draws random numbers, so what is drawn after it would "
            "shift: swap in eval() mode, and call train() on the result."
        )
