"""What a swap means: the original under hooks that put another module's output at one layer.

An edited model is held against a second, equally built network that runs under these hooks.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import torchkoopman as tk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOLERANCE = 1e-5
"""Largest difference of two tensors, relative to the largest value of the expected one."""
REFUSALS = (TypeError, ValueError, RuntimeError)
"""What ``tk.swap`` may raise; anything else is an error of its own."""


class Map(nn.Module):
    """What is put in: it brings its input to float32 and maps it."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            self.fc = nn.Linear(4, 4)

    def forward(self, state: Tensor) -> Tensor:
        return torch.tanh(self.fc(state.float()))


def rows(seed: int, scale: float = 1.0, count: int = 3) -> Tensor:
    return scale * torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


INPUTS = [rows(1), rows(2, 4.0), rows(3, 0.1), rows(4, count=5), rows(5)]
"""Fresh inputs for successive calls: other values, sizes and batch size than the example's."""


@contextlib.contextmanager
def on_state(
    model: nn.Module, layer: str, action: Callable[[Tensor], Tensor | None]
) -> Iterator[None]:
    """Within it, during one forward pass, a layer's state is what ``action`` makes of it, if any.

    The state is the output itself, or the first item of a tuple.
    """
    name, _, number = layer.partition("#")
    calls = itertools.count()

    def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
        if next(calls) != int(number or 0):
            return None
        several = isinstance(output, tuple)
        made = action(output[0] if several else output)
        return (made, *output[1:]) if several and made is not None else made

    handle = model.get_submodule(name).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def overridden(model: nn.Module, start: str, end: str, new: nn.Module) -> Iterator[None]:
    """Within it, ``new`` of the state of ``start`` stands in the place of the state of ``end``."""
    seen: list[Tensor] = []
    with (
        on_state(model, start, lambda state: seen.append(state.clone())),
        on_state(model, end, lambda state: new(seen[-1])),
    ):
        yield


def verdict(
    model: nn.Module,
    truth: nn.Module,
    new: nn.Module,
    start: str,
    end: str,
    how: str,
    before: bool = False,
) -> tuple[str, str]:
    """What became of a swap, and why: exact, refused, loud or silent.

    Args:
        model: the network that is edited.
        truth: a network built in the same way, to be run under hooks.
        new: what is put in.
        start: the first layer of the span.
        end: its last layer.
        how: the way.
        before: whether the networks ran once before the swap.
    """
    example = rows(0)
    if before:
        with torch.no_grad():
            model(example.clone()), truth(example.clone())
    held = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        edited = tk.swap(model, new, start, end, how=how, example_inputs=example)
    except REFUSALS as error:
        return "refused", f"{type(error).__name__}: {error}"
    finally:
        changed = [k for k, v in model.state_dict().items() if not torch.equal(v, held[k])]
    if changed:
        return "silent", f"the given model's {changed} changed"
    if not torch.equal(example, rows(0)):
        return "silent", "the example inputs changed"
    for number, x in enumerate(INPUTS):
        with overridden(truth, start, end, new):
            expected, gradients = ran(truth, x)
        try:
            found, mine = ran(edited, x, backward=gradients is not None)
        except Exception as error:  # whatever is raised can be seen
            return "loud", f"{type(error).__name__}: {error}"
        wrong = differing(found, expected) or differing(mine or {}, gradients or {})
        if wrong:
            return "silent", f"{tk.swap_history(edited)[-1].how}, call {number}: {wrong}"
    return "exact", tk.swap_history(edited)[-1].how


def ran(
    model: nn.Module, x: Tensor, backward: bool | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor | None] | None]:
    """Output and buffers after one call, and gradients.

    Where ``backward`` is None, a backward pass that torch refuses, since a saved tensor was written
    in place, gives None for the gradients.
    """
    x = x.clone().requires_grad_()
    model.zero_grad(set_to_none=True)
    output = model(x)
    values = {f"buffer {name}": value.clone() for name, value in model.named_buffers()}
    values["output"] = output.detach().clone()
    if backward is False:
        return values, None
    try:
        if output.requires_grad:
            weights = torch.linspace(0.5, 1.5, output.numel()).view_as(output)
            (output * weights).sum().backward()
    except RuntimeError:
        if backward:
            raise
        return values, None
    gradients = {f"gradient of {name}": value.grad for name, value in model.named_parameters()}
    return values, {"gradient of the input": x.grad, **gradients}


def differing(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The first name under which both have another value; no gradient is one of zeros."""
    for name in sorted(found.keys() & expected.keys()):
        mine, other = found[name], expected[name]
        if mine is None and other is None:
            continue
        other = torch.zeros_like(mine) if other is None else other
        mine = torch.zeros_like(other) if mine is None else mine
        if mine.shape != other.shape or mine.dtype != other.dtype:
            return f"{name} is {mine.dtype} of shape {tuple(mine.shape)}"
        gap = (mine - other).abs().max().item()
        if not gap <= TOLERANCE * max(other.abs().max().item(), 1e-3):
            return f"{name} is off by {gap:.1e}"
    return ""
