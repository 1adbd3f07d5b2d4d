"""Outputs: which tensor of whatever a layer returns is its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from torchkoopman.observe.places import leaves, spelled

OutputChoice = str | Callable[[Any], Tensor]
"""A path such as ``"0"`` or ``"0.hidden"``, or a function from a layer's output to one tensor."""


def choose_tensor(output: object, choice: OutputChoice | None, layer: str) -> Tensor:
    """The tensor that is a layer's state.

    Without a choice: a tensor is itself; of a tuple, list, mapping (ModelOutput is one) or
    dataclass, the only floating-point tensor with two axes or more; failing that, the first item of
    a tuple or list if that is a tensor, as transformer layers and recurrent networks return it.

    Raises:
        TypeError: no tensor, several to choose from, a packed sequence, integers, or a tensor that
            is not dense, or wraps another.
        ValueError: there is nothing at the path.
    """
    tensor = _choose(output, choice, layer)
    if _is_packed(tensor):
        raise TypeError(
            f"layer {layer!r} gave a {type(tensor).__name__} ({_describe(tensor)}), whose values "
            "are not those of an ordinary tensor. Choose a layer that gives one, or make one: "
            f"output=lambda output: {_UNPACKED.get(type(tensor).__name__, 'a tensor of floats')}."
        )
    if not tensor.is_floating_point():
        raise TypeError(
            f"layer {layer!r} gave {_describe(tensor)}; a state is a real vector, so a layer must "
            "give floating-point numbers. Choose the layer after it (of token indices: their "
            'embedding), or another of its tensors with output="path".'
        )
    if tensor.layout != torch.strided or tensor.is_nested:
        kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
        dense = "to_padded_tensor(0.0)" if tensor.is_nested else "to_dense()"
        raise TypeError(
            f"layer {layer!r} gave a tensor of layout {kind}; states are rows of a dense one. "
            f"Choose a layer that gives one, or read it so: output=lambda output: output.{dense}"
            f"{_PADDED if tensor.is_nested else ''}."
        )
    return tensor


_PADDED = (
    ", and give the padding to probe.mask(...). nn.TransformerEncoder gives ordinary ones after "
    "encoder.enable_nested_tensor = False"
)
_UNPACKED = {
    "MaskedTensor": "output.to_tensor(0.0), and give the mask to probe.mask(...)",
}
"""Kind of tensor → how an ordinary one is made of it."""


def _is_packed(tensor: Tensor) -> bool:
    """Whether a tensor is no more than a wrapper, or holds several values in a byte.

    Of wrappers those are read that torch.distributed makes, and those that stand for plain tensors
    in torch.export; nested tensors have words of their own.
    """
    kind = type(tensor)
    wraps = kind.__torch_dispatch__ is not Tensor.__torch_dispatch__
    known = kind.__module__.startswith(("torch.distributed", "torch.nested", "torch._subclasses"))
    return (wraps and not known) or "float4" in str(tensor.dtype)


def tensors_in(output: object) -> dict[str, Tensor]:
    """Path → tensor, for every tensor in nested tuples, lists, mappings and dataclasses."""
    return {spelled(place): leaf for place, leaf in leaves(output) if isinstance(leaf, Tensor)}


def _choose(output: object, choice: OutputChoice | None, layer: str) -> Tensor:
    if choice is not None and not isinstance(choice, str):
        chosen = _untouched(choice, output, layer)
        if not isinstance(chosen, Tensor):
            raise TypeError(
                f"output=callable returned a {type(chosen).__name__} for layer {layer!r}; it must "
                f"return one tensor. {_structure(output)}"
            )
        return chosen
    if choice is not None:
        tensors = tensors_in(output)
        if choice not in tensors:
            raise ValueError(
                f"layer {layer!r} has no tensor at output={choice!r}. {_structure(output)}"
            )
        return tensors[choice]
    if isinstance(output, Tensor):
        return output
    return _by_rule(output, layer)


def _untouched(choice: Callable[[Any], Tensor], output: object, layer: str) -> Tensor:
    """What a function makes of an output, which it must leave as it is: the model goes on with it.

    Raises:
        ValueError: it has written into the output.
    """
    held = [leaf for _, leaf in leaves(output) if isinstance(leaf, Tensor)]
    counted = [tensor for tensor in held if not tensor.is_inference()]
    versions = [tensor._version for tensor in counted]
    chosen = choice(output)
    if versions != [tensor._version for tensor in counted]:
        raise ValueError(
            f"output=callable wrote into what layer {layer!r} returned, with which the model goes "
            "on computing. Let it work on a copy: lambda output: ….clone()."
        )
    return chosen


def _by_rule(output: object, layer: str) -> Tensor:
    found = [leaf for _, leaf in leaves(output)]
    if any(isinstance(leaf, PackedSequence) for leaf in found):
        raise TypeError(
            f"layer {layer!r} gave a PackedSequence, whose rows are not (batch, positions). Unpack "
            "it with output=lambda output: pad_packed_sequence(output[0], batch_first=True)[0], "
            f'and give the padding to probe.mask(...); or choose a tensor with output="path". '
            f"{_structure(output)}"
        )
    tensors = [leaf for leaf in found if isinstance(leaf, Tensor)]
    real = [tensor for tensor in tensors if tensor.is_floating_point() and tensor.ndim >= 2]
    if len(real) == 1:
        return real[0]
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    raise TypeError(
        f"layer {layer!r} gave a {type(output).__name__} with {len(real)} tensors that could be "
        f'its state. Choose one with output="path", or output={{{layer!r}: "path"}} for this layer '
        f"only. {_structure(output)}"
    )


def _structure(output: object) -> str:
    """What there is to choose from, one path per line."""
    lines = [f"  {spelled(at) or '(itself)'}: {_describe(leaf)}" for at, leaf in leaves(output)]
    return "Its output holds:\n" + "\n".join(lines)


def _describe(leaf: object) -> str:
    if not isinstance(leaf, Tensor):
        return type(leaf).__name__
    return f"{str(leaf.dtype).removeprefix('torch.')} of shape {tuple(leaf.shape)}"
