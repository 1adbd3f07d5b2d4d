"""Side effects: what tracing would run once and a graph not hold is refused by name, and undone."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.systems import rows
from torchkoopman.graphs.side_effects import SideEffect
from torchkoopman.observe.probes import attach
from torchkoopman.observe.randomness import random_draws
from torchkoopman.surgery.swap import swap, swap_history

CACHE: dict[str, Any] = {"kept": "before"}


class Plain(nn.Module):
    """Three layers; subclasses do something besides in their forward, which tracing opens."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))
        self.register_buffer("steps", torch.zeros(()))
        self.calls, self.notes = 0, {"last": 0}

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(self.do(x))))

    def do(self, x: Tensor) -> Tensor:
        return x


class WritesBuffer(Plain):
    def do(self, x: Tensor) -> Tensor:
        self.steps += 1
        return x


class Counts(Plain):
    def do(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


class Notes(Plain):
    def do(self, x: Tensor) -> Tensor:
        self.notes["last"] = x
        return x


class SetsChild(Plain):
    def do(self, x: Tensor) -> Tensor:
        self.c.seen = x
        return x


class DrawsTorch(Plain):
    def do(self, x: Tensor) -> Tensor:
        return x + torch.rand(4)


class DrawsNumpy(Plain):
    def do(self, x: Tensor) -> Tensor:
        return x * float(np.random.rand())  # noqa: NPY002


class DrawsPython(Plain):
    def do(self, x: Tensor) -> Tensor:
        return x * random.random()


class Caches(Plain):
    def do(self, x: Tensor) -> Tensor:
        CACHE["kept"] = CACHE["new"] = x * 2
        return x


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return -gradient


class OwnBackward(Plain):
    def do(self, x: Tensor) -> Tensor:
        out: Tensor = Reversed.apply(x)
        return out


class OwnCall(Plain):
    def __call__(self, x: Tensor) -> Any:
        return super().__call__(x) * 2


class Nested(nn.Module):
    """What a swap within ``inner`` opens is not the model alone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x) * 2


def state(model: nn.Module) -> dict[str, Any]:
    """All that a forward could have changed, of all modules."""
    found = {
        f"{name}.{key}": dict(value) if isinstance(value, dict) else value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
    }
    found |= {name: each.clone() for name, each in model.state_dict().items()}
    return {**found, "random": random_draws(), "cache": dict(CACHE)}


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    for name, value in before.items():
        same = torch.equal if isinstance(value, Tensor) else lambda one, two: one == two
        assert same(value, after[name]), name


REFUSED = [
    (WritesBuffer, "'steps'"),
    (Counts, "'calls'"),
    (Notes, "'notes"),
    (SetsChild, r"'c\.seen'"),
    (DrawsTorch, "random numbers"),
    (DrawsNumpy, "draws random numbers that depend on no tensor"),
    (DrawsPython, "draws random numbers that depend on no tensor"),
    (OwnBackward, r"calls Reversed\.apply, whose backward a graph does not hold"),
    (OwnCall, "the model itself is of a class with a __call__ of its own"),
]


@pytest.mark.parametrize(("kind", "message"), REFUSED)
@pytest.mark.parametrize("nested", [False, True], ids=["root", "within"])
@pytest.mark.parametrize("given", [False, True], ids=["without example", "with example"])
def test_a_side_effect_is_refused_by_name_and_undone(
    kind: type[Plain], message: str, nested: bool, given: bool
) -> None:
    model: nn.Module = Nested(kind()) if nested else kind()
    ends = ("inner.a", "inner.b") if nested else ("a", "b")
    before = state(model)
    if nested:
        message = message.replace("the model itself", "'inner'").replace(r"'c\.", r"'inner\.c\.")
        message = message.replace("'steps'", r"'inner\.steps'").replace("'calls'", r"'inner\.cal")
        message = message.replace("'notes", r"'inner\.notes")
    with pytest.raises(SideEffect, match=message):
        swap(model, nn.Identity(), *ends, "fx", rows() if given else None)
    assert_same(before, state(model))


@pytest.mark.parametrize("kind", [Counts, DrawsPython, Caches, OwnBackward, OwnCall, WritesBuffer])
def test_what_no_graph_holds_stays_in_the_models_own_code(kind: type[Plain]) -> None:
    model = kind().eval()
    before = state(model)
    assert type(swap(model, nn.Identity(), "a", "b", "eager", rows())) is kind
    assert_same(before, state(model))


HOOKS = [
    lambda module: module.register_forward_hook(lambda *given: None),
    lambda module: module.register_forward_pre_hook(lambda *given: None),
    lambda module: module.register_full_backward_hook(lambda *given: None),
    lambda module: module.register_full_backward_pre_hook(lambda *given: None),
]


@pytest.mark.parametrize("put", HOOKS)
@pytest.mark.parametrize(("place", "name"), [("", "the model itself"), ("inner", "'inner'")])
def test_hooks_on_opened_modules_are_refused_by_name(put: Any, place: str, name: str) -> None:
    model = Nested(Plain())
    handle = put(model.get_submodule(place))
    with pytest.raises(SideEffect, match=f"{name} has hooks, and tracing opens it"):
        swap(model, nn.Identity(), "inner.a", "inner.b", "fx", rows())
    handle.remove()


def test_hooks_on_layers_that_stay_whole_go_on_running() -> None:
    model = Plain().eval()
    model.c.register_forward_hook(lambda module, args, output: output * 3)
    edited = swap(model, nn.Identity(), "a", "b", "fx", rows())
    assert torch.equal(edited(rows(1)), model.c(model.a(rows(1))))


def test_an_instances_own_forward_is_refused() -> None:
    model: Any = Plain()
    model.forward = lambda x: model.c(model.b(model.a(x)))
    with pytest.raises(SideEffect, match="the model itself is not called through the forward of"):
        swap(model, nn.Identity(), "a", "b", "fx", rows())


@pytest.mark.parametrize("given", [False, True])
def test_hooks_of_probes_do_not_count(given: bool) -> None:
    model = Plain()
    with attach(model, ["a", "b"]):
        swap(model, nn.Identity(), "a", "b", "fx", rows() if given else None)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if bool(x.sum() > 1e6) else x * 2


class Casting(Plain):
    def do(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return torch.relu(x) @ x.T @ x


def opaque() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), Branching())


def hooked() -> nn.Module:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    model[2].register_forward_hook(lambda module, args, output: output)
    return model


@pytest.mark.parametrize(
    ("make", "ends", "message"),
    [
        (opaque, ("0", "1"), r"'2.*cannot be looked into\. Give example_inputs"),
        (hooked, ("0", "1"), r"'2' has hooks\. Give example_inputs"),
        (Casting, ("a", "b"), r"autocast.*is lost in a graph\. Give example_inputs"),
    ],
)
def test_what_only_a_replay_could_show_needs_example_inputs(
    make: Any, ends: tuple[str, str], message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        swap(make(), nn.Identity(), *ends, "fx")


def test_with_example_inputs_the_replay_shows_it() -> None:
    assert all(
        swap_history(swap(m(), nn.Identity(), "0", "1", "fx", rows())) for m in (opaque, hooked)
    )
