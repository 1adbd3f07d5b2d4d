"""Networks wired by chance out of 4-wide layers, and what flows where in them.

A network is a list of steps. ``Network`` runs it; ``Flow`` follows the same list without numbers
and decides whether a cut is feasible, with no help from the library.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable

WIDTH = 4
PLAIN = ["call"] * 5 + ["sum", "sum", "alias", "again"]
"""Kinds of steps that every network may have."""
ODD: dict[str, list[str]] = {
    "in place": ["write", "augment", "view"],
    "branch": ["choose", "skip", "extra"],
    "buffer": ["count", "average", "read"],
    "attribute": ["keep", "kept", "remember", "recall"],
}
"""Further kinds of steps; a network has at most two of these features and those of LAYERS."""
LAYERS: dict[str, list[str]] = {
    "two": ["tuple", "dict"],
    "stateful": ["counter", "average"],
    "hooks": ["linear", "nested"],
    "contexts": ["linear", "nested"],
}
"""Feature → kinds of layers that come with it."""
CONTEXTS = ("autocast", "no_grad", "enable_grad")
HOOKS = ("scale", "log", "log state", "before: scale", "before: log")
BRANCHES = ("choose", "skip", "extra")
LATEST = [-1] * 5 + [0, 1, 2, 3, 4, 5]
"""Which earlier value a step reads: mostly the last."""


@dataclass(frozen=True, repr=False)
class Step:
    """One step: an operation on earlier values, then, for most kinds, the call of a layer."""

    kind: str = "call"
    left: int = -1
    right: int = 0
    asked: int = 0
    """The value whose sign a branch asks for; the network's input beyond the last."""
    layer: str = "linear"
    reads: str = "first"
    """Which of a layer's two tensors is used."""
    context: str = ""
    hook: str = ""

    def __repr__(self) -> str:
        given = {name: value for name, value in vars(self).items() if value != vars(Step())[name]}
        return f"Step({', '.join(f'{name}={value!r}' for name, value in given.items())})"


@dataclass(frozen=True)
class Wiring:
    """A network's steps, the hook on its root, and the value that its output adds to the last."""

    steps: tuple[Step, ...]
    root: str = ""
    last: int = 0


@st.composite
def wirings(draw: st.DrawFn) -> Wiring:
    """Networks of three to seven steps with up to two odd features; the rest hangs on a number."""
    features = draw(st.lists(st.sampled_from([*ODD, *LAYERS]), max_size=2, unique=True))
    length, chance = draw(st.integers(3, 7)), random.Random(draw(st.integers(0, 2**32 - 1)))
    kinds, layers = list(PLAIN), ["linear"] * 4 + ["nested", "pair"]
    for feature in features:
        kinds += ODD.get(feature, []) * 2
        layers += LAYERS.get(feature, []) * 2
    contexts = ["", "", *CONTEXTS] if "contexts" in features else [""]
    hooks = ["", "", *HOOKS] if "hooks" in features else [""]
    steps = [
        Step(
            kind=chance.choice(kinds) if index else "call",
            left=chance.choice(LATEST),
            right=chance.randrange(7),
            asked=chance.randrange(8),
            layer=chance.choice(layers),
            reads=chance.choice(["first", "second", "both"]),
            context=chance.choice(contexts),
            hook=chance.choice(hooks),
        )
        for index in range(length)
    ]
    return Wiring(tuple(steps), chance.choice(hooks), chance.randrange(7))


class Layer(nn.Module):
    """A linear map and what a kind of layer adds to it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.fc, self.other = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Any:
        y = torch.tanh(self.fc(x))
        if self.kind == "pair":
            return y, x.shape[0]
        if self.kind == "tuple":
            return y, torch.tanh(self.other(x))
        if self.kind == "dict":
            return {"first": y, "second": torch.tanh(self.other(x))}
        if self.kind == "counter":
            self.count.add_(1)
            return y
        self.mean.mul_(0.9).add_(x.detach().float().mean(0), alpha=0.1)
        return y + self.mean


def layer_of(step: Step) -> nn.Module:
    """The layer of a step."""
    if step.layer == "linear":
        return nn.Linear(WIDTH, WIDTH)
    if step.layer == "nested":
        return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
    return Layer(step.layer)


def scaled(value: Any) -> Any:
    """1.5 times a tensor, or the first entry of several."""
    if isinstance(value, dict):
        return {**value, "first": value["first"] * 1.5}
    return (value[0] * 1.5, *value[1:]) if isinstance(value, tuple) else value * 1.5


def _scale_after(module: nn.Module, arguments: Any, output: Any) -> Any:
    return scaled(output)


def _scale_before(module: nn.Module, arguments: Any) -> Any:
    return scaled(arguments)


def _log_after(module: nn.Module, arguments: Any, output: Any, state: bool = False) -> None:
    module.logged = getattr(module, "logged", 0) + 1
    if state:
        module.seen = arguments[0].detach().mean()


def _log_before(module: nn.Module, arguments: Any) -> None:
    module.logged = getattr(module, "logged", 0) + 1


def hook_on(module: nn.Module, hook: str) -> None:
    """Register a hook by its name in ``HOOKS``; none for an empty one."""
    if hook.startswith("before"):
        module.register_forward_pre_hook(_scale_before if "scale" in hook else _log_before)
    elif hook == "scale":
        module.register_forward_hook(_scale_after)
    elif hook:
        module.register_forward_hook(partial(_log_after, state="state" in hook))


def context_of(name: str) -> contextlib.AbstractContextManager[Any]:
    """A context by its name in ``CONTEXTS``."""
    if name == "autocast":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return {"no_grad": torch.no_grad, "enable_grad": torch.enable_grad}.get(
        name, contextlib.nullcontext
    )()


class Network(nn.Module):
    """The network of a wiring; always the same weights."""

    def __init__(self, wiring: Wiring) -> None:
        super().__init__()
        self.wiring = wiring
        self.kept: Tensor | None = None
        self.remembered = torch.zeros(())
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(WIDTH))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.ModuleList(layer_of(step) for step in wiring.steps)
            self.others = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in wiring.steps)
        for module, step in zip(self.layers, wiring.steps, strict=True):
            hook_on(module, step.hook)
        hook_on(self, wiring.root)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        values: list[Tensor] = []
        self.kept = None
        for index, step in enumerate(self.wiring.steps):
            left = values[step.left % len(values)] if values else x
            right = values[step.right % len(values)] if values else x
            asked = [*values, x][step.asked % (len(values) + 1)]
            values.append(self._done(index, step, left, right, asked))
        return values[-1] + values[self.wiring.last % len(values)]

    def _done(self, index: int, step: Step, left: Tensor, right: Tensor, asked: Tensor) -> Tensor:
        if step.kind == "choose":
            return self._called(index, left) if asked[0, 0] > 0 else self.others[index](left)
        if step.kind == "skip":
            return self._called(index, left) if asked[0, 0] > 0 else left
        if step.kind == "alias":
            return left
        if step.kind == "extra" and asked[0, 0] > 0:
            left = left + right
        left = self._changed(step.kind, left, right)
        return self._called(called_again(self.wiring.steps, index), left)

    def _changed(self, kind: str, left: Tensor, right: Tensor) -> Tensor:
        if kind == "write":
            left.mul_(0.5)
        elif kind == "augment":
            left += right.detach()
        elif kind == "view":
            left = left.view(-1).relu_().view(-1, WIDTH)
        elif kind == "sum":
            left = left + right
        elif kind == "count":
            self.count.add_(1)
        elif kind == "average":
            self.mean.mul_(0.9).add_(right.detach().mean(0), alpha=0.1)
        elif kind == "read":
            left = left + self.mean
        elif kind == "keep":
            self.kept = right
        elif kind == "kept" and self.kept is not None:
            left = left + self.kept
        elif kind == "remember":
            self.remembered = right.detach().mean()
        elif kind == "recall":
            left = left + self.remembered
        return left

    def _called(self, index: int, x: Tensor) -> Tensor:
        step = self.wiring.steps[index]
        with context_of(step.context):
            output = self.layers[index](x)
        if step.layer == "pair":
            output = output[0]
        elif step.layer in ("tuple", "dict"):
            keys = ("first", "second") if step.layer == "dict" else (0, 1)
            if step.reads == "both":
                output = output[keys[0]] + output[keys[1]]
            else:
                output = output[keys[0] if step.reads == "first" else keys[1]]
        return output.float() if step.context == "autocast" else output


def called_again(steps: Iterable[Step], index: int) -> int:
    """The layer that a step calls: its own, or one called before without a condition."""
    steps = tuple(steps)
    earlier = [i for i in range(index) if steps[i].kind not in (*BRANCHES, "alias", "again")]
    earlier += [i for i in range(index) if steps[i].kind == "extra"]
    return earlier[steps[index].right % len(earlier)] if steps[index].kind == "again" else index
