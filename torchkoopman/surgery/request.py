"""Requests: what a swap is to do, and what every way of doing it returns."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import nn

from torchkoopman.graphs.nodes import labelled
from torchkoopman.observe.selection import per_layer
from torchkoopman.observe.views import View
from torchkoopman.surgery.history import SurrogateLike, swap_history

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchkoopman.surgery.reference import Known


@dataclass(frozen=True)
class SwapRequest:
    """What a swap is to do; every way to do it takes one."""

    model: nn.Module
    """Left as it is."""
    module: nn.Module
    """What is put in."""
    start: str
    end: str
    known: Mapping[str, Known] = field(default_factory=dict)
    """Layer → how its state was chosen."""
    side_inputs: Sequence[str] | None = None
    keep_escapes: bool = False


def known_views(
    fitted: SurrogateLike | None, layers: tuple[str, str], output: Mapping[str, str] | str | None
) -> dict[str, Known]:
    """How the two layers' states are chosen: as the surrogate's were, or as is said."""
    views: Mapping[str, View] = getattr(fitted, "views", {})
    known: dict[str, Known] = {layer: views.get(layer) for layer in layers}
    for layer, path in per_layer(output, layers, "output", caller="swap").items():
        if not isinstance(path, str):
            raise TypeError(
                f"swap() got output={path!r} for layer {layer!r}, and a module can only be put "
                'back at a path, such as output="0"; a function is for looking.'
            )
        view = known[layer]
        if isinstance(view, View) and view.function is None and view.path != path:
            raise ValueError(
                f"swap() got output={path!r} for layer {layer!r}, but the surrogate was fitted on "
                f"{view.path!r}: what was read is what is replaced."
            )
        known[layer] = view if isinstance(view, View) else path
    for layer, view in known.items():
        if isinstance(view, View) and view.function is not None:
            raise TypeError(
                f"layer {layer!r} was read through the function {view.function!r} (output=…), "
                "which is for looking: a module cannot be put back through it. Fit on a tensor by "
                'its path to swap, such as output="0".'
            )
        if isinstance(view, View) and view.layout.pooled:
            raise ValueError(
                f"layer {layer!r} was read as {view.layout.pattern!r}, an average, which is for "
                "looking: a module cannot be put back through it. Fit with a layout that keeps all "
                "axes, such as 'b c h w -> b (h w) c' between layers of one resolution, or "
                "'b ... -> b 1 (...)' across several."
            )
    return known


def present(model: nn.Module, layer: str) -> str:
    """A layer's name, or that of the module that an earlier swap put in its place in a graph."""
    if labelled(model) is not None:
        return layer
    here = {name for name, _ in model.named_modules(remove_duplicate=False)}
    moved = {record.end: record.module for record in swap_history(model)}
    return moved[layer] if layer not in here and moved.get(layer) in here else layer


def ends_of(
    surrogate: SurrogateLike | nn.Module, start: str | None, end: str | None
) -> tuple[str, str]:
    """The two layers' names, from the surrogate where not given."""
    if isinstance(surrogate, SurrogateLike):
        start = surrogate.layers[0] if start is None else start
        end = surrogate.layers[-1] if end is None else end
        for layer in (start, end):
            if layer not in surrogate.layers:
                raise ValueError(
                    f"the surrogate was not fitted on layer {layer!r}; its layers are "
                    f"{', '.join(map(repr, surrogate.layers))}."
                )
        return start, end
    if not isinstance(surrogate, nn.Module):
        raise TypeError(
            f"swap() puts in a surrogate or an nn.Module; it got a {type(surrogate).__name__}."
        )
    if start is None or end is None:
        raise ValueError(
            f"a {type(surrogate).__name__} does not say between which layers it stands (start="
            f"{start!r}, end={end!r}): give the names of both, from model.named_modules()."
        )
    return start, end


def replacement(surrogate: SurrogateLike | nn.Module, start: str, end: str) -> nn.Module:
    """A module of its own: a surrogate's may share tensors with the surrogate."""
    if isinstance(surrogate, SurrogateLike):
        return copy.deepcopy(surrogate.replacement(start, end))
    return copy.deepcopy(surrogate)
