"""Networks wired by chance: every cut is exact or refused, never silently wrong."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.systems import rows
from torchkoopman.graphs.region import DirtyCut
from torchkoopman.surgery.swap import swap, swap_history
from torchkoopman.undo import undo

Steps = list[tuple[str, int, int]]
KINDS = ["layer"] * 6 + ["pair", "pair", "sum", "sum", "write", "augment", "view", "alias", "again"]
LATEST = st.sampled_from([-1] * 5 + [0, 1, 2, 3, 4, 5])  # mostly the value before
STEPS = st.tuples(st.sampled_from(KINDS), LATEST, st.integers(0, 6))
GRAPHS = st.lists(STEPS, min_size=3, max_size=7)
ORDERLY = ("there is no span", "two different layers", "nothing in the model uses")
"""Refusals that are no crossings: one end does not follow from the other."""
NO_GRAPH = (
    *ORDERLY,
    "is given to no layer on the way",
    "in one forward pass",
    "no new",
    "crosses",
    "there is no such value",
    "judge by its code",
)


class Pair(nn.Module):
    """A layer that returns a tuple, as recurrent and attention layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return torch.tanh(self.fc(x)), x.shape[0]


class Graph(nn.Module):
    """Layers wired by a list of steps, each an operation on earlier values."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.steps = steps
        with torch.random.fork_rng():
            torch.manual_seed(0)
            pairs = [kind == "pair" for kind, _, _ in steps]
            self.layers = nn.ModuleList(Pair() if pair else nn.Linear(4, 4) for pair in pairs)

    def forward(self, x: Tensor) -> Tensor:
        values = [self._called(0, x)]
        for index, (kind, one, other) in enumerate(self.steps[1:], 1):
            left, right = values[one % len(values)], values[other % len(values)]
            if kind == "write":
                left.mul_(0.5)
            elif kind == "augment":
                left += right.detach()
            elif kind == "view":
                left = left.view(-1).relu_().view(-1, 4)
            elif kind == "sum":
                left = left + right
            if kind == "again":  # an earlier layer runs once more
                index = other % index
            values.append(left if kind == "alias" else self._called(index, left))
        return values[-1] + values[self.steps[0][1] % len(values)]

    def _called(self, index: int, x: Tensor) -> Tensor:
        output = self.layers[index](x)
        return output[0] if self.steps[index][0] == "pair" else output


class Lookup(nn.Module):
    """The function that a layer's state is of another's, on the inputs that were seen."""

    def __init__(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.pairs = pairs

    def forward(self, state: Tensor) -> Tensor:
        return next(end for start, end in self.pairs if torch.equal(start, state)).clone()


@contextlib.contextmanager
def states(
    model: nn.Module, start: str, end: str, new: nn.Module | None
) -> Iterator[dict[str, Any]]:
    """The states of two layers while the model runs, and ``new`` of the first in the last's place.

    This is what a swap means: the truth that edited models are held against.
    """
    seen: dict[str, Any] = {}
    counts = {start: 0, end: 0}

    def hook(layer: str, output: Any) -> Any:
        counts[layer] += 1
        if counts[layer] - 1 != int(layer.partition("#")[2] or 0):
            return None
        seen[layer] = (output[0] if isinstance(output, tuple) else output).clone()
        if layer != end or new is None:
            return None
        made = new(seen[start])
        return (made, *output[1:]) if isinstance(output, tuple) else made

    hooks = [
        model.get_submodule(layer.partition("#")[0]).register_forward_hook(
            lambda module, inputs, output, layer=layer: hook(layer, output)
        )
        for layer in (start, end)
    ]
    try:
        yield seen
    finally:
        for each in hooks:
            each.remove()


def called(steps: Steps) -> list[str]:
    """The names of all calls, in order."""
    order = [0]
    for index, (kind, _, other) in enumerate(steps[1:], 1):
        order += [] if kind == "alias" else [other % index if kind == "again" else index]
    names = []
    for place, index in enumerate(order):
        count = order.count(index)
        names.append(f"layers.{index}" + (f"#{order[:place].count(index)}" if count > 1 else ""))
    return names


def check(steps: Steps, data: st.DataObject, how: str) -> None:
    """One cut of one network, by one way."""
    model = Graph(steps)
    names = called(steps)
    assume(len(names) > 1)
    ends = st.lists(st.integers(0, len(names) - 1), min_size=2, max_size=2, unique=True)
    start, end = (names[place] for place in sorted(data.draw(ends)))
    inputs = [rows(seed) for seed in range(3)]
    expected, pairs = [], []
    for x in inputs:
        with states(model, start, end, None) as seen:
            expected.append(model(x))
        pairs.append((seen[start], seen[end]))
    refusal: Exception | None = None
    try:
        edited = swap(model, Lookup(pairs), start, end, how, example_inputs=rows(0))
    except (ValueError, RuntimeError) as error:
        refusal = error
    event("exact" if refusal is None else type(refusal).__name__)
    if isinstance(refusal, DirtyCut):
        assert refusal.crossings
        assert how == "eager" or all(repr(c.value) in str(refusal) for c in refusal.crossings)
        return
    if refusal is not None:
        assert any(reason in str(refusal) for reason in (ORDERLY if how == "fx" else NO_GRAPH))
        return
    assert swap_history(edited)[-1].how == how
    assert all(torch.equal(edited(x), y) for x, y in zip(inputs, expected, strict=True))
    assert all(torch.equal(undo(edited)(x), y) for x, y in zip(inputs, expected, strict=True))
    another = nn.Linear(4, 4)
    edited = swap(model, another, start, end, how, example_inputs=rows(0))
    for x in inputs:
        with states(model, start, end, another):
            truth = model(x)
        torch.testing.assert_close(edited(x), truth, rtol=1e-5, atol=1e-6)


COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


@settings(max_examples=500, **COMMON)
@given(GRAPHS, st.data())
@torch.no_grad()
def test_any_cut_of_a_traced_graph_is_exact_or_refused_with_the_crossing_named(
    steps: Steps, data: st.DataObject
) -> None:
    check(steps, data, "fx")


@settings(max_examples=250, **COMMON)
@given(GRAPHS, st.data())
@torch.no_grad()
def test_any_exchange_of_layers_is_exact_or_refused(steps: Steps, data: st.DataObject) -> None:
    check(steps, data, "eager")


@pytest.mark.slow
@settings(max_examples=50, **COMMON)
@given(GRAPHS, st.data())
@torch.no_grad()
def test_any_cut_of_an_exported_graph_is_exact_or_refused(
    steps: Steps, data: st.DataObject
) -> None:
    check(steps, data, "export")
