"""Alike layers: one trace for many of them, and one each where code could tell them apart."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (as everybody calls it)
from torch import Tensor, fx, nn

from torchkoopman.graphs import aliasing
from torchkoopman.graphs.alike import likeness
from torchkoopman.graphs.schemas import Effect

if TYPE_CHECKING:
    from collections.abc import Callable

CHOSEN: list[Any] = []
COUNTED: list[int] = []
LIMIT = 0


class Block(nn.Module):
    """What most blocks are like."""

    def __init__(
        self, inplace: bool = False, heads: int = 2, layer: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(4), nn.Linear(4, 4)
        self.act = nn.Sequential(nn.ReLU(inplace), layer or nn.Identity())
        self.heads, self.scale = heads, 0.5

    def forward(self, x: Tensor) -> Tensor:
        h = self.mixed(self.norm(x))
        if self.heads > 4:
            h = x.mul_(2)
        return x + self.act(F.gelu(h, approximate="tanh"))

    def mixed(self, h: Tensor) -> Tensor:
        b, _ = h.shape
        return torch.tanh(self.inner(h).view(b, self.heads, -1).flatten(1)) * self.scale


class Apart(nn.Module):
    """Writes into its input if it is the second of two that are made alike."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def is_second(self) -> bool:
        return self is CHOSEN[1]

    def forward(self, x: Tensor) -> Tensor:
        if self.is_second():
            x.mul_(2)
        return self.inner(x)


class ByTable(Apart):
    def forward(self, x: Tensor) -> Tensor:
        if {CHOSEN[0]: 0, CHOSEN[1]: 1}[self]:
            x.mul_(2)
        return self.inner(x)


class ByLayer(Apart):
    def forward(self, x: Tensor) -> Tensor:
        inner = self.inner
        if inner is CHOSEN[1].inner:
            x.mul_(2)
        return inner(x)


class ByIdentity(Apart):
    def forward(self, x: Tensor) -> Tensor:
        if id(self) == id(CHOSEN[1]):
            x.mul_(2)
        return self.inner(x)


class ByCount(Apart):
    def forward(self, x: Tensor) -> Tensor:
        COUNTED.append(1)
        if len(COUNTED) > 1:
            x.mul_(2)
        return self.inner(x)


class ByGlobal(Apart):
    def forward(self, x: Tensor) -> Tensor:
        global LIMIT
        LIMIT += 1
        if LIMIT > 1:
            x.mul_(2)
        return self.inner(x)


class ByDefault(Apart):
    def counted(self, held: list[int] = []) -> int:  # noqa: B006 (what it tests)
        held.append(1)
        return len(held)

    def forward(self, x: Tensor) -> Tensor:
        if self.counted() > 1:
            x.mul_(2)
        return self.inner(x)


class ByClass(Apart):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        if type(self).calls > 1:
            x.mul_(2)
        return self.inner(x)


class ByProperty(Apart):
    @property
    def second(self) -> bool:
        return self is CHOSEN[1]

    def forward(self, x: Tensor) -> Tensor:
        if self.second:
            x.mul_(2)
        return self.inner(x)


class ByAsking(Apart):
    def __getattr__(self, name: str) -> Any:
        return self is CHOSEN[1] if name == "second" else super().__getattr__(name)

    def forward(self, x: Tensor) -> Tensor:
        if self.second:
            x.mul_(2)
        return self.inner(x)


class ByClosure(Apart):
    def forward(self, x: Tensor) -> Tensor:
        def second() -> bool:
            return self is CHOSEN[1]

        if second():
            x.mul_(2)
        return self.inner(x)


class ByName(Apart):
    def forward(self, x: Tensor) -> Tensor:
        if dict(CHOSEN[1].named_modules())[""] == self:
            x.mul_(2)
        return self.inner(x)


class ByParent(Apart):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class ByMode(Apart):
    def forward(self, x: Tensor) -> Tensor:
        torch.set_default_dtype(torch.float64 if COUNTED else torch.float32)
        COUNTED.append(1)
        if torch.get_default_dtype() == torch.float64:
            x.mul_(2)
        return self.inner(x)


class ByDraw(Apart):
    def forward(self, x: Tensor) -> Tensor:
        if torch.rand(()) > DRAWN:
            x.mul_(2)
        return self.inner(x)


class Valued(nn.Module):
    """Two of these differ by a value."""

    def __init__(self, value: Any, hold: Callable[[nn.Module, Any], None]) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        hold(self, value)

    def forward(self, x: Tensor) -> Tensor:
        if self.told == 1:
            x.mul_(2)
        return self.inner(x)


class Tied(nn.Module):
    """Writes into its input through a name that may be another's parameter."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
        if tied:
            self.b = self.a

    def forward(self, x: Tensor) -> Tensor:
        return x * self.a + self.b


def _seed() -> float:
    """What the first of two draws is below, and the second above."""
    for seed in range(100):
        torch.manual_seed(seed)
        first, second = torch.rand(2).tolist()
        if first < second:
            torch.manual_seed(seed)
            return float(first + second) / 2
    raise AssertionError


DRAWN = 1.0


def effects(*layers: nn.Module) -> list[Effect]:
    """Of layers in one graph, which are looked at in turn."""
    graph = fx.Graph()
    value = graph.placeholder("x")
    for place in range(len(layers)):
        value = graph.call_module(str(place), (value,))
    graph.output(value)
    root, known = nn.Sequential(*layers), dict[Any, Effect]()
    calls = [node for node in graph.nodes if node.op == "call_module"]
    return [aliasing.effect_of(node, root, known) for node in calls]


def test_of_alike_blocks_one_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[nn.Module] = []
    original = aliasing._traced_effect

    def counted(module: nn.Module, tracer: Any) -> Effect:
        traced.append(module)
        return original(module, tracer)

    monkeypatch.setattr(aliasing, "_traced_effect", counted)
    blocks = [Block(), Block(), Block(True), Block(), Block(heads=8), Block(True)]
    found = effects(*blocks)
    assert traced == [blocks[0], blocks[2], blocks[4]]
    assert [bool(each.writes) for each in found] == [False, False, False, False, True, False]
    assert all(each.known for each in found)


@pytest.mark.parametrize(
    "kind",
    [
        Apart, ByTable, ByLayer, ByIdentity, ByCount, ByGlobal, ByDefault, ByClass, ByProperty,
        ByAsking, ByClosure, ByName, ByParent, ByMode, ByDraw,
    ],
)  # fmt: skip
def test_layers_that_tell_themselves_apart_have_each_its_own_effect(
    kind: type[Apart], monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [kind(), kind()]
    monkeypatch.setitem(globals(), "CHOSEN", layers)
    monkeypatch.setitem(globals(), "COUNTED", [])
    monkeypatch.setitem(globals(), "LIMIT", 0)
    with torch.random.fork_rng(devices=[]):
        monkeypatch.setitem(globals(), "DRAWN", _seed())
        try:
            found = effects(*layers)
        finally:
            torch.set_default_dtype(torch.float32)
    assert [bool(each.writes) for each in found] == [False, True]


HOLDING: dict[str, Callable[[nn.Module, Any], None]] = {
    "attribute": lambda module, value: setattr(module, "told", value),
    "buffer": lambda module, value: module.register_buffer("told", torch.tensor(value)),
    "list": lambda module, value: setattr(module, "told", Equal([value])),
    "class": lambda module, value: setattr(
        module, "__class__", type("Other", (type(module),), {"told": value})
    ),
}


class Equal(list[int]):
    """Equals what it holds."""

    def __eq__(self, other: object) -> bool:
        return self[0] == other

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("hold", HOLDING)
@pytest.mark.parametrize("values", [(0, 1), (1.5, 1), ("1", 1), (0, True)], ids=repr)
def test_layers_that_differ_by_a_value_have_each_its_own_effect(
    hold: str, values: tuple[Any, Any]
) -> None:
    if hold == "buffer" and isinstance(values[0], str):
        values = (0, 1)
    found = effects(*(Valued(value, HOLDING[hold]) for value in values))
    assert [bool(each.writes) for each in found] == [False, True]


def test_numbers_that_are_equal_and_of_other_kinds_are_not_alike() -> None:
    kept = HOLDING["attribute"]
    keys = [likeness(Valued(value, kept)) for value in (1, 1.0, True, "1", 0.0, -0.0, None)]
    assert None not in keys
    assert all(one != other for one, other in itertools.combinations(keys, 2))
    assert likeness(Valued(1, kept)) == likeness(Valued(1, kept))


def test_layers_within_count_with_all_they_hold() -> None:
    assert likeness(Block(layer=Block())) == likeness(Block(layer=Block()))
    assert likeness(Block(layer=Block())) != likeness(Block(layer=Block(heads=8)))
    assert likeness(Block(layer=Block())) != likeness(Block(layer=Block(True)))
    assert likeness(Block(layer=Apart())) is None
    found = effects(Block(layer=Block()), Block(layer=Block(heads=8)))
    assert found == [aliasing.effect_of(*_alone(each)) for each in _fresh()]


def _fresh() -> list[nn.Module]:
    return [Block(layer=Block()), Block(layer=Block(heads=8))]


def _alone(layer: nn.Module) -> tuple[fx.Node, nn.Module]:
    graph = fx.Graph()
    node = graph.call_module("0", (graph.placeholder("x"),))
    return node, nn.Sequential(layer)


def test_shared_parameters_and_modes_are_told_apart() -> None:
    assert likeness(Tied(True)) == likeness(Tied(True)) != likeness(Tied(False))
    assert likeness(Block()) != likeness(Block().eval())


def test_what_cannot_be_looked_into_stays_so() -> None:
    class Odd(Block):
        def mixed(self, h: Tensor) -> Tensor:
            return h if h.sum() > 0 else -h

    assert likeness(Odd()) == likeness(Odd()) != likeness(Block())
    assert [each.known for each in effects(Odd(), Odd())] == [False, False]


def test_attributes_of_no_plain_kind_and_own_calls_are_not_alike() -> None:
    held = Block()
    held.held = OrderedDict(a=1)  # type: ignore[assignment]
    assert likeness(held) is None


@pytest.mark.parametrize("layer", ["", "act"])
def test_a_forward_of_an_instance_is_its_own(layer: str) -> None:
    block = Block()
    block.get_submodule(layer).forward = lambda x: x.mul_(2)  # type: ignore[method-assign]
    assert likeness(block) is None
