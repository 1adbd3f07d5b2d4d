"""Hostile: what users do to the edited model after the swap."""

from __future__ import annotations

import copy
import types
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Case, Inputs, Six, case, example, fresh

CAUSE = "attributes change after the swap"


class Warm(Six):
    """A temperature, an offset and a switch, as plain attributes."""

    shift = 0.0

    def build(self) -> None:
        self.temp, self.skip, self.sizes = 1.0, False, [1.0, 1.0]
        self.offset = torch.zeros(WIDTH)
        self.register_buffer("scale", torch.ones(WIDTH))
        self.bias = nn.Parameter(torch.zeros(WIDTH))

    def before(self, h: Tensor) -> Tensor:
        return self.b[4](h) if self.skip else h

    def behind(self, h: Tensor) -> Tensor:
        return (h / self.temp + self.offset + self.shift) * self.scale * self.sizes[0] + self.bias

    def encode(self, x: Tensor) -> Tensor:
        """The first layers alone."""
        return self.b[1](self.b[0](x))

    def reset(self) -> None:
        """Sets the temperature."""
        self.temp = 3.0


def temperature(model: nn.Module, inputs: Inputs) -> Any:
    """Set on the model before the call."""
    model.temp = 2.0
    return model(*inputs)


def switch(model: nn.Module, inputs: Inputs) -> Any:
    """Another path before the span."""
    first = model(*inputs)
    model.skip = True
    return first, model(*inputs)


def offset(model: nn.Module, inputs: Inputs) -> Any:
    """A tensor that is a plain attribute."""
    model.offset = torch.ones(WIDTH)
    return model(*inputs)


def in_list(model: nn.Module, inputs: Inputs) -> Any:
    """An entry of a list on the model."""
    model.sizes[0] = 2.0
    return model(*inputs)


def on_class(model: nn.Module, inputs: Inputs) -> Any:
    """The class's default, put back afterwards."""
    Warm.shift = 2.0
    try:
        return model(*inputs)
    finally:
        Warm.shift = 0.0


def method(model: nn.Module, inputs: Inputs) -> Any:
    """A method of the model's own sets it."""
    model.reset()
    return model(*inputs)


def other_method(model: nn.Module, inputs: Inputs) -> Any:
    """Another method than forward is called."""
    return model.encode(*inputs)


def hook_on_root(model: nn.Module, inputs: Inputs) -> Any:
    """A hook for one call."""
    with model.register_forward_hook(lambda _, given, out: out * 2):
        return model(*inputs)


def hook_on_kept(model: nn.Module, inputs: Inputs) -> Any:
    """A hook on a layer behind the span for one call."""
    with model.get_submodule("b.4").register_forward_hook(lambda _, given, out: out * 2):
        return model(*inputs)


def hook_on_inner(model: nn.Module, inputs: Inputs) -> Any:
    """A hook on a layer within the span for one call; what it does is overridden."""
    with model.get_submodule("b.2").register_forward_hook(lambda _, given, out: out * 2):
        return model(*inputs)


def layer_replaced(model: nn.Module, inputs: Inputs) -> Any:
    """A layer behind the span becomes the identity."""
    model.b[4] = nn.Identity()
    return model(*inputs)


def inner_weight(model: nn.Module, inputs: Inputs) -> Any:
    """A weight of a layer behind the span becomes another parameter."""
    model.get_submodule("b.4.0").weight = nn.Parameter(torch.eye(WIDTH))
    return model(*inputs)


def buffer_in_place(model: nn.Module, inputs: Inputs) -> Any:
    """A buffer is written."""
    model.get_buffer("scale").fill_(2.0)
    return model(*inputs)


def buffer_rebound(model: nn.Module, inputs: Inputs) -> Any:
    """A buffer becomes another tensor."""
    model.scale = torch.full((WIDTH,), 2.0)
    return model(*inputs)


def parameter_rebound(model: nn.Module, inputs: Inputs) -> Any:
    """A parameter becomes another."""
    model.bias = nn.Parameter(torch.ones(WIDTH))
    return model(*inputs)


def trained(model: nn.Module, inputs: Inputs) -> Any:
    """A step along the gradient of the layers behind the span."""
    model(*inputs).sum().backward()
    with torch.no_grad():
        model.get_submodule("b.5.0").weight.sub_(model.get_submodule("b.5.0").weight.grad * 0.1)
    return model(*inputs)


def loaded(model: nn.Module, inputs: Inputs) -> Any:
    """A state dict is loaded, of what is there."""
    state = {key: value * 0.5 for key, value in model.state_dict().items() if "b.4" in key}
    model.load_state_dict(state, strict=False)
    return model(*inputs)


def doubled(model: nn.Module, inputs: Inputs) -> Any:
    """The model is moved to another precision and back."""
    wide = model.double()(inputs[0].double())
    model.float()
    return wide


def copied(model: nn.Module, inputs: Inputs) -> Any:
    """A deep copy is used."""
    with torch.no_grad():
        return copy.deepcopy(model)(*inputs)


def frozen(model: nn.Module, inputs: Inputs) -> Any:
    """A layer is frozen."""
    model.get_submodule("b.5").requires_grad_(False)
    return model(*inputs)


def patched(model: nn.Module, inputs: Inputs) -> Any:
    """The method between the layers is replaced on the instance."""
    model.behind = types.MethodType(lambda self, h: h * 3, model)
    return model(*inputs)


def inner_called(model: nn.Module, inputs: Inputs) -> Any:
    """The layers outside the span are called by hand."""
    return model.get_submodule("b.4")(model.get_submodule("b.0")(*inputs))


def film(model: nn.Module, inputs: Inputs) -> Any:
    """An attribute of a leaf layer behind the span."""
    model.get_submodule("b.4").factor = float(inputs[0].detach().abs().mean())
    return model(*inputs)


class FactorLayer(nn.Linear):
    """A layer with a factor."""

    factor = 1.0

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h) * self.factor


class WithFactor(Six):
    """Such a layer behind the span, and one before."""

    def build(self) -> None:
        self.b[0], self.b[4] = FactorLayer(WIDTH, WIDTH), FactorLayer(WIDTH, WIDTH)


HARMFUL = {
    "temperature set": temperature,
    "switch set": switch,
    "plain tensor set": offset,
    "list entry set": in_list,
    "class attribute set": on_class,
    "set by a method": method,
    "another method called": other_method,
    "hook on the model later": hook_on_root,
    "hook in the span later": hook_on_inner,
    "layer replaced later": layer_replaced,
    "buffer rebound later": buffer_rebound,
    "parameter rebound later": parameter_rebound,
    "method patched later": patched,
    "precision changed later": doubled,
}
HARMLESS = {
    "hook behind the span later": hook_on_kept,
    "weight replaced later": inner_weight,
    "buffer written later": buffer_in_place,
    "trained later": trained,
    "state loaded later": loaded,
    "copied later": copied,
    "frozen later": frozen,
    "layers called by hand": inner_called,
}


def driven(name: str, drive: Any, kind: type[nn.Module] = Warm) -> Case:
    return case(CAUSE, kind, twin=False, name=name, drive=drive, example=example, fresh=fresh)


CASES = [driven(name, drive) for name, drive in HARMFUL.items()]
CASES.append(driven("factor of a layer set", film, WithFactor))
LATER = [driven(name, drive) for name, drive in HARMLESS.items()]
"""What is done to the model after the swap without harm; see ``friendly.py``."""
