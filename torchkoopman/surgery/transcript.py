"""Transcripts: all that some calls of a model in a row did, as facts by name.

A fact is an output, an entry of an argument that the model filled, the state that entered a module,
a gradient, a buffer or an attribute afterwards. Two models do the same if their facts are equal.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from torchkoopman.observe.costs import unfused
from torchkoopman.observe.facts import Facts, alike, attributes, facts_in
from torchkoopman.observe.places import leaves
from torchkoopman.surgery.switching import Reading

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from torchkoopman.observe.example import Example

SAMPLE = 2048
"""Numbers kept of each gradient, evenly spaced, besides its norm: enough to tell two apart, and
little beside the weights."""
PUT_IN = "the module put in: "
"""Comes before the names of its parameters."""
Reach = Literal["inputs", "parameters", "nothing"]
"""What gradients are asked of: inputs and parameters, parameters alone, or nothing."""


@dataclass
class Transcript:
    """What some calls of a model in a row did."""

    calls: Facts = field(default_factory=dict)
    """For each call: what it returned, what it left in its arguments, what entered the module."""
    gradients: Facts = field(default_factory=dict)
    """Gradients of the last call, by parameter and input; absent where none or all zeros."""
    left: Facts = field(default_factory=dict)
    """Buffers and attributes that the calls have changed, as they are in the end."""
    asked: bool = True
    """Whether anything asked whether a module is in training."""


class Failed(Exception):  # noqa: N818 (what happened, to be told in the words of who asked)
    """A call did not end; ``__cause__`` says why."""

    def __init__(self, call: int) -> None:
        super().__init__(call)
        self.call = call


def transcribe(
    model: nn.Module,
    examples: Sequence[Example],
    entered: Sequence[Any] = (),
    reach: Reach = "inputs",
    put_in: nn.Module | None = None,
    weights: bool = False,
    around_first: AbstractContextManager[Any] | None = None,
) -> Transcript:
    """Call a model on examples in a row, the last time with gradients.

    Args:
        model: it is called as it is, so give a copy.
        examples: what to call it with; they are copied.
        entered: a list to which hooks append what enters the module put in, call by call.
        reach: what gradients of the last call are asked of.
        put_in: the module put in, whose parameters are told apart from the model's own.
        weights: whether parameters that calls write into are facts as buffers are.
        around_first: entered around the first call.

    Raises:
        Failed: a call raised something.
    """
    found = Transcript()
    before = _left(model, weights)
    mode_reads = Reading()
    for number, example in enumerate(examples):
        count = len(entered)
        last = number == len(examples) - 1
        asked = _Gradients(_parameters(model, put_in), reach if last else "nothing")
        try:
            with mode_reads:
                with around_first if around_first and not number else nullcontext():
                    result, given = asked.called(model, example)
                found.gradients = asked.gradients(result)
            found.calls |= _facts_of_call(number + 1, result, given, entered[count:])
        except Exception as error:  # runs the user's code
            raise Failed(number) from error
    found.asked = mode_reads.count > 0
    try:
        after = _left(model, weights)
    except RuntimeError as error:  # a value that must not be read was kept
        raise Failed(len(examples) - 1) from error
    found.left = {
        name: after.get(name)
        for name in {**before, **after}
        if name not in before or name not in after or not alike(before[name], after[name])
    }
    return found


def _facts_of_call(number: int, result: Any, given: Any, entered: Sequence[Any]) -> Facts:
    """What one call returned, left in its arguments, and gave to the module put in."""
    found: Facts = {}
    for kind, value in (("output", result), ("argument", given)):
        found |= dict(facts_in(f"call {number}: {kind}", value))
    for index, each in enumerate(entered):
        again = f" at call {index + 1} of the module" if index else ""
        found |= dict(facts_in(f"call {number}: what enters the span{again}", each))
    return found


class _Gradients:
    """One call of a model, with the gradients that are asked for."""

    def __init__(self, parameters: dict[str, nn.Parameter], reach: Reach) -> None:
        self.parameters, self.reach = parameters, reach
        self.inputs: list[Tensor] = []

    def called(self, model: nn.Module, example: Example) -> tuple[Any, Any]:
        """What the model returned, and its arguments afterwards."""
        call = example.copied()
        args, kwargs = pytree.tree_map_only(Tensor, self._input, (call.args, call.kwargs))
        grad = self.reach != "nothing"
        with torch.inference_mode(False), torch.set_grad_enabled(grad), unfused():
            return model(*args, **kwargs), (args, kwargs)

    def gradients(self, result: Any) -> Facts:
        """Gradients of a fixed random function of all outputs; they leave nothing behind."""
        found: Facts = {}
        if self.reach == "nothing":
            return found
        found_in = [leaf for _, leaf in leaves(result) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in found_in if leaf.requires_grad]
        names: dict[int, list[str]] = {}  # a shared parameter has several
        for name, parameter in self.parameters.items():
            names.setdefault(id(parameter), []).append(name)

        def note(tensor: Tensor) -> None:
            for name in names[id(tensor)]:
                found.update(_digest(name, tensor.grad))
            tensor.grad = None

        held = {id(each): each for each in self.parameters.values()}.values()
        learning = [each for each in held if each.requires_grad and each.is_leaf]
        handles: list[Any] = [
            each.register_post_accumulate_grad_hook(note)  # type: ignore[no-untyped-call]
            for each in learning
        ]
        try:
            if outputs:
                torch.autograd.backward(outputs, [_weights(each) for each in outputs])
        finally:
            for handle in handles:
                handle.remove()
        for number, tensor in enumerate(self.inputs):
            found.update(_digest(f"input {number}", tensor.grad))
        return found

    def _input(self, tensor: Tensor) -> Tensor:
        """An argument through which gradients flow, and which may be written to all the same."""
        if self.reach != "inputs" or not tensor.is_floating_point():
            return tensor
        self.inputs.append(tensor.requires_grad_())
        with torch.enable_grad():
            return tensor.clone()


def _left(model: nn.Module, weights: bool) -> Facts:
    held = model.named_parameters() if weights else ()
    return {**attributes(model), **{name: each.detach().clone() for name, each in held}}


def _parameters(model: nn.Module, put_in: nn.Module | None) -> dict[str, nn.Parameter]:
    """Parameters by name; those of the module put in have the same names wherever it is."""
    own = {} if put_in is None else dict(put_in.named_parameters(remove_duplicate=False))
    inside = {id(each) for each in own.values()}
    held = model.named_parameters(remove_duplicate=False)
    return {
        **{name: each for name, each in held if id(each) not in inside},
        **{f"{PUT_IN}{name}": each for name, each in own.items()},
    }


def _weights(tensor: Tensor) -> Tensor:
    """Fixed random numbers of a tensor's shape."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(tensor.shape, generator=generator).to(tensor.device, tensor.dtype)


def _digest(name: str, gradient: Tensor | None) -> Facts:
    """What is kept of a gradient; nothing of one that is zero."""
    if gradient is None or gradient.layout != torch.strided:
        return {}
    flat = gradient.detach().flatten()
    size = flat.norm()
    if not bool(size):
        return {}
    step = max(1, flat.numel() // SAMPLE)
    return {f"gradient of {name!r}": torch.cat([size[None], flat[::step]])}
