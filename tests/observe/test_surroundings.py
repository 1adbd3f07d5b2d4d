"""Surroundings: what a model's code does to all it can reach is undone, and nothing else is."""

import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from torchkoopman.observe.randomness import random_draws
from torchkoopman.observe.surroundings import Surroundings

LOG: list[Any] = ["first"]
CALLS = 0
SEEN = torch.ones(2)


class Marked(nn.Module):
    """A layer whose class has variables."""

    count = 0
    names: list[str] = ["a"]  # noqa: RUF012 (such classes are what is tested)
    plain = True

    def forward(self, x: Tensor) -> Tensor:
        return x


class Notes:
    """An object of a user's own class."""

    total = 0

    def __init__(self) -> None:
        self.calls, self.last, self.seen = 0, None, {"a": 1}


def hooked(hook: Callable[..., Any]) -> nn.Module:
    """A model whose only code of a user's is a hook."""
    model = nn.Linear(2, 2)
    model.register_forward_hook(hook)
    return model


def restored(model: nn.Module) -> None:
    """The model runs twice, and the surroundings are given back."""
    with Surroundings(model).kept():
        for _ in range(2):
            model(torch.ones(1, 2))


@pytest.mark.parametrize(
    ("held", "change"),
    [
        ({"a": 1}, lambda held: held.update(a=2, b=3)),
        ({"a": 1}, lambda held: held.clear()),
        ([1, 2], lambda held: held.append(3)),
        ([1, 2], lambda held: held.reverse()),
        ([[1], [2]], lambda held: held[0].append(3)),
        ({1, 2}, lambda held: held.add(len(held))),
        (deque([1, 2]), lambda held: held.append(3)),
        (deque([1, 2], 2), lambda held: held.append(3)),
        (defaultdict(list, a=[1]), lambda held: held["b"].append(1)),
        (OrderedDict(a=1, b=2), lambda held: held.pop("a", 0)),
        (Counter("ab"), lambda held: held.update("a")),
        ({"a": {"b": [1]}}, lambda held: held["a"]["b"].clear()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_containers_in_a_hooks_closure_are_restored(
    held: Any, change: Callable[[Any], None]
) -> None:
    before = repr(held)

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        change(held)

    restored(hooked(hook))
    assert repr(held) == before


def test_a_container_in_a_default_argument_is_restored() -> None:
    seen: list[int] = []

    def hook(module: nn.Module, args: Any, output: Tensor, seen: list[int] = seen) -> None:
        seen.append(1)

    restored(hooked(hook))
    assert seen == []


def test_a_list_in_a_global_of_the_file_is_restored() -> None:
    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        LOG.append(output)

    restored(hooked(hook))
    assert LOG == ["first"]


def rebinding(module: nn.Module, args: Any, output: Tensor) -> None:
    global CALLS, MADE
    CALLS += 1
    MADE = output  # type: ignore[name-defined]


def test_globals_are_bound_to_what_they_were_and_new_ones_go() -> None:
    restored(hooked(rebinding))
    assert CALLS == 0
    assert "MADE" not in globals()


def test_nonlocal_cells_are_restored() -> None:
    count, kept = 0, None

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        nonlocal count, kept
        count, kept = count + 1, output

    restored(hooked(hook))
    assert (count, kept) == (0, None)


def test_class_variables_are_restored_and_new_ones_go() -> None:
    class Writing(Marked):
        def forward(self, x: Tensor) -> Tensor:
            Marked.count += 1
            Marked.names.append("b")
            Marked.added = x  # type: ignore[attr-defined]
            type(self).plain = False
            return x

    restored(Writing())
    assert (Marked.count, Marked.names, Marked.plain) == (0, ["a"], True)
    assert not hasattr(Marked, "added")
    assert "plain" not in vars(Writing)


def test_an_object_in_a_closure_and_its_class_are_restored() -> None:
    notes = Notes()

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        notes.calls += 1
        notes.last = output
        notes.seen["b"] = 2
        notes.new = 1  # type: ignore[attr-defined]
        Notes.total += 1

    restored(hooked(hook))
    assert vars(notes) == {"calls": 0, "last": None, "seen": {"a": 1}}
    assert Notes.total == 0


def test_tensors_written_in_place_are_restored() -> None:
    own, model = torch.zeros(2), nn.BatchNorm1d(2)
    model.register_buffer("steps", torch.tensor(1))

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        own.add_(1)
        SEEN.mul_(2)
        module.steps += 1

    model.register_forward_hook(hook)
    with Surroundings(model).kept():
        model(torch.randn(4, 2))
    assert own.tolist() == [0, 0]
    assert SEEN.tolist() == [1, 1]
    assert model.steps == 1
    assert model.running_mean.tolist() == [0, 0]
    assert model.num_batches_tracked == 0


def test_attributes_of_modules_and_an_instances_own_forward_are_restored() -> None:
    model = nn.Sequential(Marked())
    state: dict[str, Any] = {}

    def forward(x: Tensor) -> Tensor:
        state["x"] = model[0].kept = x
        return x

    model[0].forward = forward
    restored(model)
    assert not state
    assert not hasattr(model[0], "kept")
    assert model[0].forward is forward


def test_hooks_of_parameters_are_looked_into() -> None:
    seen: list[Tensor] = []
    model = nn.Linear(2, 2)
    model.weight.register_hook(lambda gradient: seen.append(gradient))
    with Surroundings(model).kept():
        model(torch.ones(1, 2)).sum().backward()
        assert seen
    assert seen == []


DRAWS: list[Callable[[], Any]] = [
    lambda: torch.rand(1),
    lambda: nn.functional.dropout(torch.ones(8)),
    lambda: np.random.rand(),  # noqa: NPY002
    lambda: np.random.standard_normal(),  # noqa: NPY002
    random.random,
    lambda: random.shuffle([1, 2, 3]),
    lambda: torch.manual_seed(3),
]


@pytest.mark.parametrize("draw", DRAWS)
def test_random_draws_are_told_and_undone(draw: Callable[[], Any]) -> None:
    before = random_draws()
    with Surroundings().kept():
        draw()
        assert random_draws() != before
    assert random_draws() == before


def test_what_fails_within_is_undone_too_and_told() -> None:
    seen: list[int] = []

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        seen.append(1)
        raise KeyError("mine")

    model = hooked(hook)
    model.register_forward_pre_hook(lambda module, args: (args[0] + torch.rand(1),))
    before = random_draws()
    with pytest.raises(KeyError, match="mine"), Surroundings(model).kept():
        model(torch.ones(1, 2))
    assert seen == []
    assert random_draws() == before


def test_the_state_of_other_packages_is_left() -> None:
    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        torch.nn.Linear.marked = True  # type: ignore[attr-defined]

    restored(hooked(hook))
    assert nn.Linear.marked  # type: ignore[attr-defined]
    del nn.Linear.marked  # type: ignore[attr-defined]


def test_what_a_model_cannot_reach_is_left() -> None:
    other = [1]
    with Surroundings(nn.Linear(2, 2)).kept():
        other.append(2)
    assert other == [1, 2]
