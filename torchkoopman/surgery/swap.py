"""Swap: a span of a model's layers becomes one module, and back.

The surgery is done on a torch.fx graph of a copy. What a graph cannot carry is left behind: the
model's class with its other methods and attributes, hooks on the model itself and on the modules
opened for the cut. ``swap_back`` has them.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from torchkoopman.surgery.cut import cut_graph
from torchkoopman.surgery.record import (
    ORIGINAL,
    RECORDS,
    Original,
    SurrogateLike,
    SwappedModule,
    SwapRecord,
    as_json,
    swaps,
    tensors,
    version,
)
from torchkoopman.surgery.splice import replay, splice

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SurrogateLike", "SwapRecord", "swap", "swap_back", "swaps"]

HOW = ("auto", "fx")
"""The backends there are; ``"auto"`` takes the first that fits."""


def swap(
    model: nn.Module,
    surrogate: SurrogateLike | nn.Module,
    start: str | None = None,
    end: str | None = None,
    how: str = "auto",
    example_inputs: Tensor | Sequence[Any] | None = None,
) -> SwappedModule:
    """A copy of ``model`` in which one module stands between the outputs of two layers.

    The module takes the output of the layer ``start``, and what it gives is used as the output of
    ``end``. The layers after ``start``, up to and with ``end``, are gone, also from the state_dict.
    The cut is proven clean on the graph first (see ``find_cut``).

    The graph holds the branches that the modules around the two layers took in the model's training
    mode at the time of the swap: there ``F.dropout(x, training=self.training)`` stays on or off and
    optional arguments count as given. Swap in the mode in which the result will be used. Modules
    that contain neither layer are kept whole and keep their own behaviour.

    Args:
        model: the model; it is not changed. It may have been swapped before.
        surrogate: a fitted surrogate, or any module from output tensor to output tensor. It is
            copied. It must not write into its input.
        start: a name of ``model.named_modules()``, ``name#k`` for its k-th call, from 0. For a
            surrogate one of its layers, by default the first.
        end: likewise; by default the surrogate's last layer.
        how: ``"fx"``, or ``"auto"`` for the first backend that fits.
        example_inputs: the model's positional arguments, or its one tensor. With them the wiring is
            replayed in eval mode: with the recorded output of ``end`` in place of the module, the
            edited model must return what the model returns, bit by bit.

    Raises:
        DirtyCut: a value crosses the border of the span; it is named, with the nearest clean cut.
        ValueError: unknown layers or backend, ends in the wrong order, no ends for a plain module.
        TypeError: not modules.
        RuntimeError: the model cannot be traced, or the replay found a difference.
    """
    if how not in HOW:
        raise ValueError(f"swap() has no backend how={how!r}; there are {', '.join(HOW)}.")
    if not isinstance(model, nn.Module):
        raise TypeError(f"swap() edits an nn.Module; it got a {type(model).__name__}.")
    start, end = _ends(surrogate, start, end)
    original, root = copy.deepcopy(model), copy.deepcopy(model)
    graph, cut = cut_graph(root, start, end)
    fitted = surrogate if isinstance(surrogate, SurrogateLike) else None
    module = _replacement(surrogate, start, end).train(model.training)
    for tensor in list(tensors(root).values())[:1]:
        module.to(tensor.device)
    edited, name = splice(root, graph, cut, module)
    if example_inputs is not None:
        _check_tensor(replay(original, cut, example_inputs), end, fitted)
    kept = tensors(edited)
    record = SwapRecord(
        start=start,
        end=end,
        module=name,
        how="fx",
        surrogate=type(surrogate).__name__,
        card=as_json(fitted.card()) if fitted else None,
        config=as_json(fitted.config()) if fitted else None,
        inputs=fitted.inputs if fitted else (),
        removed=sum(t.numel() for key, t in tensors(root).items() if key not in kept),
        added=sum(tensor.numel() for tensor in tensors(module).values()),
        version=version(),
    )
    edited.meta[RECORDS] = (*swaps(model), record)
    edited.meta[ORIGINAL] = Original(original)
    return edited


def swap_back(edited: nn.Module) -> nn.Module:
    """The model before its last swap, of the class it had, with what was learnt since.

    A new model: a copy of the one that was given to ``swap``, with the current parameters and
    buffers of ``edited`` in the layers that both have, on their device and in their precision.
    The layers of the span are as they were.

    Raises:
        ValueError: nothing was swapped in this model.
        RuntimeError: the model was read from a file, which does not hold the original.
    """
    records = swaps(edited)
    if not records:
        raise ValueError(f"nothing was swapped in this {type(edited).__name__}; swaps() is empty.")
    held: Original = getattr(edited, "meta", {}).get(ORIGINAL, Original())
    if held.model is None:
        raise RuntimeError(
            f"the layers that {records[-1].module!r} replaced are not in this model: it was read "
            "from a file, and files hold the edited model only. Load the original model instead."
        )
    restored = copy.deepcopy(held.model)
    mine, theirs = restored.state_dict(), edited.state_dict()
    current = {name: value for name, value in theirs.items() if name in mine}
    floating = [name for name, value in current.items() if value.is_floating_point()]
    for name in floating[:1]:  # only what changed: a model may mix precisions
        if current[name].dtype != mine[name].dtype:
            restored.to(current[name].dtype)
        restored.to(current[name].device)
    restored.load_state_dict(current, strict=False)
    modes = {name: module.training for name, module in edited.named_modules()}
    turned = edited.training != restored.training
    for name, module in restored.named_modules():
        module.training = modes.get(name, edited.training if turned else module.training)
    return restored


def _ends(
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


def _check_tensor(given: Any, end: str, fitted: SurrogateLike | None) -> None:
    if fitted and not isinstance(given, Tensor):
        raise TypeError(
            f"layer {end!r} returns a {type(given).__name__}, and a surrogate gives a tensor: end "
            "the span at a layer that returns one."
        )


def _replacement(surrogate: SurrogateLike | nn.Module, start: str, end: str) -> nn.Module:
    """A module of its own: a surrogate's may share tensors with the surrogate."""
    if isinstance(surrogate, SurrogateLike):
        return copy.deepcopy(surrogate.replacement(start, end))
    return copy.deepcopy(surrogate)
