"""The head: the linear layer behind a span that gives the model's logits, found or checked.

In a model it is proven: whatever numbers are put in the place of its output, the model's answers
have their order; and what it reads is the span's last state. Without one it is held against the
classes: the state that a class has on average must be given that class.
"""

from __future__ import annotations

from contextlib import ExitStack
from threading import get_ident
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchkoopman.observe.alone import evaluating
from torchkoopman.observe.example import Example
from torchkoopman.observe.interrupts import uninterrupted
from torchkoopman.observe.names import named_module
from torchkoopman.observe.outputs import choose_tensor
from torchkoopman.observe.views import View

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.example import ExampleInputs

_DRAWS = 8
"""How many times other numbers are put in the place of a layer's output."""
_SHOWN = 4
"""Layers that an error names at most."""


def head_of(
    surrogate: Surrogate,
    model: nn.Module | None,
    head: nn.Linear | None,
    example_inputs: ExampleInputs | None = None,
) -> nn.Linear:
    """The linear layer that follows the span: found in the model, or the one given, checked.

    Args:
        surrogate: whose span it follows.
        model: in which it is looked for.
        head: that layer, if known.
        example_inputs: what the model is called with; by default tensors by position, of the shapes
            that the fit has seen.

    Raises:
        TypeError: a head that is no linear layer, a model that is no module, or inputs of no kind
            that a model is called with.
        ValueError: it is not the layer that gives the logits, does not read the span's last state,
            or there is none.
    """
    if head is not None and not isinstance(head, nn.Linear):
        raise TypeError(
            f"head={head!r} is a {type(head).__name__}; give the nn.Linear itself that follows the "
            "span: model.get_submodule(name)."
        )
    if model is None:
        assert head is not None
        _check_by_classes(surrogate, head)
        return head
    if not isinstance(model, nn.Module):
        raise TypeError(f"model= is a {type(model).__name__}; give the nn.Module of the surrogate.")
    return _found(surrogate, model, head, _example(surrogate, model, example_inputs))


def _example(surrogate: Surrogate, model: nn.Module, given: ExampleInputs | None) -> Example:
    """A call of the model, of two samples or more: as given, or like those of the fit."""
    if given is not None:
        return Example.of(given).with_a_batch()
    if not surrogate.inputs:
        raise ValueError(
            "the surrogate was fitted without seeing the model called with tensors by position, so "
            "its head cannot be looked for with inputs like these. Give example_inputs=, as swap() "
            "takes them; or head= without model=, which is then held against the classes."
        )
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    return Example.made(surrogate.inputs, device).with_a_batch()


def _found(
    surrogate: Surrogate, model: nn.Module, head: nn.Linear | None, example: Example
) -> nn.Linear:
    """The head of a model, from forward passes on example inputs."""
    last = surrogate.layers[-1]
    linear = {name: each for name, each in model.named_modules() if isinstance(each, nn.Linear)}
    if head is not None:
        linear = {name: each for name, each in linear.items() if each is head}
        if not linear:
            raise ValueError(
                f"head={head!r} is no layer of the {type(model).__name__} given as model=; leave "
                "it out to have the model's own found."
            )
    with evaluating(model):
        classes, state, read = _passed(surrogate, model, example, linear)
        wide = [name for name in reversed(read) if linear[name].out_features == classes]
        giving = (name for name in wide if _gives_the_answers(model, linear[name], example))
        name = next(giving, None)
    if name is None:
        raise ValueError(
            f"the {type(model).__name__} gives {classes} numbers a row, and of its linear layers "
            f"{list(linear)[-_SHOWN:]} none that runs once gives them: with other numbers in the "
            "place of its output, the model's answers do not have their order. Leave head= and "
            "model= out to edit the operator alone."
        )
    if not _same_state(state, read[name]):
        raise ValueError(
            f"the model's head {name!r} does not read the output of {last!r}, where the span ends, "
            "but what the layers between make of it, so no state there is certain to have neutral "
            f"logits. Fit up to the layer that {name!r} reads, or leave head= and model= out and "
            "edit the head itself with neutral_head()."
        )
    return linear[name]


def _passed(
    surrogate: Surrogate, model: nn.Module, example: Example, linear: Mapping[str, nn.Linear]
) -> tuple[int, Tensor, dict[str, Tensor]]:
    """Numbers a row of the answers, the span's last state, and what layers that ran once read."""
    last, calls = surrogate.layers[-1], dict[str, list[Tensor]]()
    states, own = list[Tensor](), get_ident()

    def keep(name: str) -> Callable[..., None]:
        def kept(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if get_ident() == own:
                read = args[0] if args else kwargs["input"]
                calls.setdefault(name, []).append(read.detach().clone())

        return kept

    def look(_: nn.Module, __: Any, output: Any) -> None:
        if get_ident() != own:
            return
        view, tensor = View.of(output, surrogate.views.get(last), None, last)
        states.append(view.layout.to_state(tensor.detach().clone()))

    with ExitStack() as stack:
        for name, module in linear.items():
            hook = module.register_forward_pre_hook(keep(name), with_kwargs=True)
            stack.callback(hook.remove)
        stack.callback(named_module(model, last).register_forward_hook(look).remove)
        answer = choose_tensor(example.run(model), None, "the model")
    once = {name: each[0] for name, each in calls.items() if len(each) == 1}
    if not states:
        raise ValueError(
            f"the model was run, and layer {last!r}, where the span ends, did not run."
        )
    return answer.shape[-1], states[-1], once


def _gives_the_answers(model: nn.Module, layer: nn.Linear, example: Example) -> bool:
    """Whether the model's answers have the order of whatever stands for the layer's output."""
    generator, put, own = torch.Generator().manual_seed(0), list[Tensor](), get_ident()

    def other(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
        if get_ident() != own:  # somebody else's pass, which gets what the layer gave
            return None
        put.append(torch.randn(output.shape, generator=generator).to(output))
        return put[-1]

    with ExitStack() as stack:
        with uninterrupted():
            stack.callback(layer.register_forward_hook(other).remove)
        told = [choose_tensor(example.run(model), None, "the model") for _ in range(_DRAWS)]
    if len(put) != _DRAWS or any(t.numel() != p.numel() for t, p in zip(told, put, strict=True)):
        return False
    answers, drawn = torch.stack([t.reshape(put[0].shape) for t in told]), torch.stack(put)
    rising = answers.gather(-1, drawn.argsort(-1))
    return bool((rising.diff(dim=-1) >= 0).all() and (rising[..., -1] > rising[..., 0]).all())


def _same_state(state: Tensor, read: Tensor) -> bool:
    """Whether a layer has read the state ``(batch, positions, features)``, or a mean or one of it.

    These are affine in the state, with weights that add up to one, so that what is neutral at every
    position is neutral behind them.
    """
    if read.shape[-1] != state.shape[-1]:
        return False
    rows = read.reshape(len(state), -1, state.shape[-1]) if len(read) == len(state) else None
    if rows is None:
        return read.numel() == state.numel() and _close(read.reshape(state.shape), state)
    if rows.shape == state.shape:
        return _close(rows, state)
    return any(_close(rows, each[:, None]) for each in (state.mean(1), *state.unbind(1)))


def _close(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def _check_by_classes(surrogate: Surrogate, head: nn.Linear) -> None:
    """Refuse a head that does not give each class the average state of its samples."""
    statistics, frame = surrogate.statistics, surrogate.frames()[-1]
    if statistics is None or head.in_features != frame.features:
        return  # what follows says so
    gone = {c for edit in surrogate.edits for c in edit.classes}
    classes = [c for c in statistics.classes if c not in gone]
    ends = torch.stack([statistics.by_class[c].mean("end") for c in classes])
    states = surrogate.decode(ends.to(frame.weight)[:, None], surrogate.layers[-1])[:, 0]
    logits = nn.functional.linear(
        states.double(),
        head.weight.double(),
        None if head.bias is None else head.bias.double(),
    )
    given = logits.argmax(1).tolist()
    if given != classes:
        raise ValueError(
            f"head={head!r} does not give the classes: to the average states of the classes "
            f"{classes} at {surrogate.layers[-1]!r} it gives {given}. Row c must be the logit of "
            "class c, for a layer that reads this state; give model=model to have it found, or "
            "proven where a network is unsure of a class."
        )
