"""Reads: what code reads of the world is found, and a change of it is told; nothing else is."""

from __future__ import annotations

import functools
import importlib
import io
import itertools
import json
import operator
import os
import pickle
import sys
import time
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from torchkoopman.graphs.reads import Reads
from torchkoopman.graphs.unchanged import Unchanged

if TYPE_CHECKING:
    from collections.abc import Callable

SCALE, UNREAD = 1.0, 1.0
TABLE = {"scale": 1.0}
SETTINGS = SimpleNamespace(scale=1.0, other=1.0)
FACTOR: ContextVar[float] = ContextVar("FACTOR", default=1.0)


def helper(amount: float = 1.0) -> float:
    return SCALE * amount


class Model(nn.Module):
    gain = 1.0

    def forward(self, x: Tensor) -> Tensor:
        scale = helper() * TABLE["scale"] * SETTINGS.scale * FACTOR.get()
        return x * scale * self.gain * getattr(self, "late", 1.0)


def check() -> Unchanged:
    return Unchanged(tuple(Reads([Model()], {}).found.values()))


def told(unchanged: Unchanged) -> str:
    with pytest.raises(RuntimeError, match="has changed since this graph was made") as caught:
        unchanged(nn.Module(), ())
    return str(caught.value)


def test_what_is_as_it_was_is_no_objection() -> None:
    check()(nn.Module(), [torch.ones(2)])


@pytest.mark.parametrize(
    ("home", "name", "words"),
    [
        (__name__, "SCALE", "global variable 'SCALE'"),
        (SETTINGS, "scale", "'scale' of it"),
        (Model, "gain", "Model.gain"),
        (Model, "late", "an attribute of Model"),
        (helper, "__defaults__", "a default of helper"),
    ],
)
def test_a_change_is_told_by_name(
    monkeypatch: pytest.MonkeyPatch, home: Any, name: str, words: str
) -> None:
    unchanged = check()
    target = globals() if isinstance(home, str) else home
    if isinstance(target, dict):
        monkeypatch.setitem(target, name, 2.0)
    else:
        value = (2.0,) if name == "__defaults__" else 2.0
        monkeypatch.setattr(target, name, value, raising=False)
    assert words in told(unchanged)


def test_entries_and_context_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    unchanged = check()
    token = FACTOR.set(2.0)
    assert "FACTOR" in told(unchanged)
    FACTOR.reset(token)
    unchanged(nn.Module(), ())
    monkeypatch.setitem(TABLE, "scale", 2.0)
    assert "TABLE" in told(unchanged)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("setting", ["is_autocast_enabled", "get_autocast_dtype"])
def test_what_holds_at_the_moment_on_either_device_is_read(kind: str, setting: str) -> None:
    class Asks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if torch.is_autocast_enabled() else x

    unchanged = Unchanged(tuple(Reads([Asks()], {}).found.values()))
    change = getattr(torch, setting.replace("is_", "set_").replace("get_", "set_"))
    before = getattr(torch, setting)(kind)
    change(kind, {False: True}.get(before, torch.float32))
    try:
        assert "autocast" in told(unchanged)
    finally:
        change(kind, before)
    unchanged(nn.Module(), ())


class Imports(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        import benchmarks.hostile.case
        from benchmarks.hostile.ambient import SETTINGS as SETTINGS

        return x * benchmarks.hostile.case.WIDTH * SETTINGS.scale * torch.arange(0, 1, 0.5)


@pytest.mark.parametrize("name", ["case.WIDTH", "ambient.SETTINGS.scale"])
def test_what_a_forward_imports_when_it_runs_is_read(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    Imports()(torch.ones(2))
    unchanged = Unchanged(tuple(Reads([Imports()], {}).found.values()))
    monkeypatch.setattr(f"benchmarks.hostile.{name}", 2.0)
    message = told(unchanged)
    assert "the module 'benchmarks" in message
    assert f"{name.rpartition('.')[2]!r} of it" in message


NAME = "scale"


def by_variable(x: Tensor) -> Tensor:
    return x * getattr(SETTINGS, NAME)


def by_spelling(x: Tensor) -> Tensor:
    return x * getattr(SETTINGS, f"{x.__class__.__name__ and NAME}", 1.0)


def by_handing_on(x: Tensor) -> Tensor:
    return x * next(map(getattr, [SETTINGS], [NAME]))


def by_vars(x: Tensor) -> Tensor:
    return x * vars(SETTINGS)[NAME]


def by_dict(x: Tensor) -> Tensor:
    return x * SETTINGS.__dict__[NAME]


def by_getter(x: Tensor) -> Tensor:
    return x * operator.attrgetter(NAME)(SETTINGS)


@pytest.mark.parametrize("forward", [
    by_variable, by_spelling, by_handing_on, by_vars, by_dict, by_getter,
])  # fmt: skip
def test_code_that_asks_by_names_it_does_not_hold_asks_for_every_value(
    monkeypatch: pytest.MonkeyPatch, forward: Callable[[Tensor], Tensor]
) -> None:
    kind = type("Asks", (nn.Module,), {"forward": lambda self, x: forward(x)})
    reads = Reads([kind()], {})
    assert not reads.unstable
    unchanged = Unchanged(tuple(reads.found.values()))
    unchanged(nn.Module(), ())
    monkeypatch.setattr(SETTINGS, "other", 2.0)
    assert "'other' of it" in told(unchanged)


def test_a_name_in_the_code_is_one_whatever_stands_around_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Among other calls, with a default that is computed, in a call within the first argument."""

    class Asks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scale = max(getattr(SETTINGS, "scale"), 0.0) + getattr(SETTINGS, "none", max(1, 2))  # noqa: B009
            return x * scale * getattr(getattr(SETTINGS, "scale", x), "real", len(x.shape))

    unchanged = Unchanged(tuple(Reads([Asks()], {}).found.values()))
    monkeypatch.setattr(SETTINGS, "other", 2.0)
    unchanged(nn.Module(), ())
    monkeypatch.setattr(SETTINGS, "scale", 2.0)
    assert "'scale' of it" in told(unchanged)


def test_a_models_own_values_are_read_by_names_that_are_made_when_it_runs() -> None:
    class Numbered(nn.Module):
        gain0 = 1.0

        def __init__(self) -> None:
            super().__init__()
            self.table0 = SimpleNamespace(scale=1.0)

        def forward(self, x: Tensor) -> Tensor:
            table = getattr(self, f"table{x.ndim * 0}")
            return x * table.scale * getattr(self, f"gain{x.ndim * 0}")

    model = Numbered()
    unchanged = Unchanged(tuple(Reads([model], {}).found.values()))
    model.table0.scale = 2.0
    assert "'table0'" in told(unchanged)
    model.table0.scale = 1.0
    Numbered.gain0 = 2.0
    assert "Numbered.gain0" in told(unchanged)


@functools.singledispatch
def dispatched(value: object) -> float:
    return 1.0


@dispatched.register
def _(value: int) -> float:
    return SCALE * value


def test_functions_by_the_kinds_of_their_arguments_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Asks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * dispatched(1)

    unchanged = Unchanged(tuple(Reads([Asks()], {}).found.values()))
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert "SCALE" in told(unchanged)


@dataclass
class Point:
    scale: float = 1.0


POINT = Point()


class ByPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        match POINT:
            case Point(1.0):
                return x
        return x * 2


class ByKeyword(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        match POINT:
            case Point(scale=1.0):
                return x
        return x * 2


@pytest.mark.parametrize("kind", [ByPlace, ByKeyword])
def test_the_attributes_in_a_pattern_are_read(
    monkeypatch: pytest.MonkeyPatch, kind: type[nn.Module]
) -> None:
    unchanged = Unchanged(tuple(Reads([kind()], {}).found.values()))
    monkeypatch.setattr(POINT, "scale", 2.0)
    assert "'scale' of it" in told(unchanged)


@pytest.mark.parametrize("code", [
    "globals()['SCALE']", "eval('SCALE')", "__import__('benchmarks').hostile.case.WIDTH",
    "importlib.import_module('benchmarks.hostile.case').WIDTH",
    "import_module('benchmarks.hostile.case').WIDTH",
    "sys.modules['benchmarks.hostile.case'].WIDTH", "open('a.txt').read()", "PATH.read_text()",
    "GET(SETTINGS)", "PART()", "LOAD('benchmarks.hostile.case').WIDTH", "READ('a.txt').read()",
    "READ_PART().read()", "HELD['read']('a.txt').read()", "PATH.open().read()",
    "io.open('a').read()", "list(map(Path.open, [PATH]))[0].read()", "json.load(HANDLE)",
    "np.load('a.npy')", "from_disk('a.npy')", "MAP('a.bin')[0]", "torch.load('a.pt')",
    "restore('a.pt')", "os.listdir('.')[0]",
])  # fmt: skip
def test_what_reads_by_names_of_which_nothing_is_known_can_be_no_part_of_a_graph(code: str) -> None:
    space = {
        "SCALE": 1.0,
        "__name__": __name__,
        "importlib": importlib,
        "import_module": importlib.import_module,
        "sys": sys,
        "PATH": Path("a.txt"),
        "GET": operator.attrgetter("scale"),
        "PART": functools.partial(getattr, SETTINGS, "scale"),
        "LOAD": importlib.import_module,
        "READ": open,
        "READ_PART": functools.partial(open, "a.txt"),
        "HELD": {"read": open},
        "HANDLE": io.StringIO("1"),
        **{"np": np, "from_disk": np.load, "MAP": np.memmap, "torch": torch, "restore": torch.load},
        **{"os": os, "json": json, "io": io, "Path": Path},
    }
    exec(f"def forward(self, x): return x * {code}", space)
    model = type("Asks", (nn.Module,), {"forward": space["forward"]})()
    assert Reads([model], {}).unstable


def test_names_of_readers_that_are_the_models_own_read_no_file() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.open, self.load = 1.0, 2.0

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x) * self.open * self.load * float(np.float32(1))

    assert not Reads([Gate()], {}).unstable


def test_another_default_kind_of_number_and_other_kinds_of_entries_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unchanged = Unchanged(tuple(Reads([Imports()], {}).found.values()))
    torch.set_default_dtype(torch.float64)
    try:
        assert "arange" in told(unchanged)
    finally:
        torch.set_default_dtype(torch.float32)
    unchanged = check()
    monkeypatch.setitem(TABLE, "scale", True)  # equals 1.0, and x * True is of another kind
    assert "TABLE" in told(unchanged)


def test_what_no_code_asks_for_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    unchanged = check()
    monkeypatch.setattr(SETTINGS, "other", 2.0)
    monkeypatch.setitem(globals(), "UNREAD", 2.0)
    unchanged(nn.Module(), ())


def test_an_unpickled_check_knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    unchanged = pickle.loads(pickle.dumps(check()))
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    unchanged(nn.Module(), ())


def test_clocks_iterators_and_what_layers_set_can_be_no_part_of_a_graph() -> None:
    class Setting(nn.Module):
        large = False

        def forward(self, x: Tensor) -> Tensor:
            self.large = bool(x.max() > 1)
            return x

    class Unstable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.turns, self.layer = itertools.cycle([1.0]), Setting()

        def forward(self, x: Tensor) -> Tensor:
            x = self.layer(x) * next(self.turns) * time.time()
            return x if self.layer.large else -x

    model = Unstable()
    found = " ".join(Reads([model], {"layer": model.layer}).unstable)
    assert "time.time()" in found
    assert "'turns', an iterator" in found
    assert "layer.large, which that layer sets" in found


class Holder:
    def __init__(self) -> None:
        self.number, self.inner = 1.0, SimpleNamespace(numbers=np.ones(2))

    def told(self) -> float:
        return self.number

    def __float__(self) -> float:
        return float(self.inner.numbers[0])


HELD: dict[str, Any] = {"list": [torch.ones(2)], "array": np.ones(3), "holder": Holder()}


class Indirect(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        holder = HELD["holder"]
        return x * float(HELD["list"][0][0]) * HELD["array"].mean() * holder.told() * float(holder)


@pytest.mark.parametrize("kind", ["tensor", "array", "by a method", "by a special method"])
def test_writes_into_what_numbers_are_read_of_are_told(kind: str) -> None:
    unchanged = Unchanged(tuple(each.beside(()) for each in Reads([Indirect()], {}).found.values()))
    unchanged(nn.Module(), ())
    holder = HELD["holder"]
    writes: dict[str, Any] = {
        "tensor": lambda value: HELD["list"][0].data.fill_(value),
        "array": lambda value: HELD["array"].fill(value),
        "by a method": lambda value: setattr(holder, "number", value),
        "by a special method": lambda value: holder.inner.numbers.fill(value),
    }
    writes[kind](2.0)
    try:
        assert "HELD" in told(unchanged)
    finally:
        writes[kind](1.0)
    unchanged(nn.Module(), ())
