"""Whether training and evaluation differ: proven in both modes, unless nothing can tell them apart.

Each model here computes something else in training, and says so in another way. Its graph must do
so too once it is switched, or refuse to be switched.
"""

import contextlib
import operator
import os
import signal
import threading
from collections import Counter, defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import torchkoopman as tk
from torchkoopman.observe.surroundings import Surroundings
from torchkoopman.surgery import replay, switching


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process in which no other test has compiled anything."""
    monkeypatch.setattr("torch._dynamo.utils.counters", defaultdict(Counter))


ROWS = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))


class Chain(nn.Module):
    """Three layers, and a factor that depends on the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))
        self.out = nn.Linear(4, 4)

    def factor(self) -> Any:
        return 1.0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.c(self.b(self.a(x)))) * self.factor()
        return y


class Reads(Chain):
    def factor(self) -> Any:
        return 2.0 if self.training else 1.0


class OfALayer(Chain):
    def factor(self) -> Any:
        return 2.0 if self.out.training else 1.0


class Behind(Chain):
    def factor(self) -> Any:
        return 2.0 if vars(self)["training"] else 1.0


class ByName(Chain):
    def factor(self) -> Any:
        return 2.0 if operator.attrgetter("training")(self) else 1.0


class InAThread(Chain):
    def factor(self) -> Any:
        found: list[float] = []
        thread = threading.Thread(target=lambda: found.append(2.0 if self.training else 1.0))
        thread.start()
        thread.join()
        return found[0]


class Switches(Chain):
    """Sets a scale when it is switched, as merged adapters do, and reads no mode."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0

    def train(self, mode: bool = True) -> "Switches":
        super().train(mode)
        self.scale = 2.0 if mode else 1.0
        return self

    def factor(self) -> Any:
        return self.scale


class Listens(Chain):
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "training":
            super().__setattr__("scale", 2.0 if value else 1.0)

    def factor(self) -> Any:
        return self.scale


class OfItsClass(Chain):
    training = False

    def factor(self) -> Any:
        return 2.0 if self.training else 1.0


class Within(Chain):
    """A dropout in a layer after the span."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(4, 4), nn.Dropout(1.0))  # type: ignore[assignment]


def drops(module: nn.Module, x: Tensor) -> Tensor:
    return functional.dropout(x, 1.0, module.training)


class Helped(Chain):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(drops(self, self.c(self.b(self.a(x)))))
        return y


KINDS = [
    Reads, OfALayer, Behind, ByName, InAThread, Switches, Listens, OfItsClass, Within, Helped,
]  # fmt: skip


def expected(model: nn.Module, module: nn.Module) -> Tensor:
    """The model with the module put in by a hook."""
    states: list[Tensor] = []
    hooks = [
        model.a.register_forward_hook(lambda m, args, output: states.append(output)),
        model.b.register_forward_hook(lambda m, args, output: module(states.pop())),
    ]
    found: Tensor = model(ROWS)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["fx", "auto"])
def test_a_graph_is_right_in_the_other_mode_or_refuses_it(kind: type[Chain], how: str) -> None:
    torch.manual_seed(0)
    model, module = kind().eval(), nn.Linear(4, 4)
    edited: Any = None
    with contextlib.suppress(RuntimeError):
        edited = tk.swap(model, module, "a", "b", how=how, example_inputs=ROWS)
    assert edited is not None or how == "fx"
    if edited is None:
        return
    torch.testing.assert_close(edited(ROWS), expected(model, module))
    model.train()
    with contextlib.suppress(RuntimeError):
        edited.train()
    if edited.training:
        torch.testing.assert_close(edited(ROWS), expected(model, module))


def test_a_read_in_compiled_code_cannot_be_seen() -> None:
    with pytest.warns(DeprecationWarning, match="jit"):
        scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Dropout(1.0)))
    compiled = Chain()
    compiled.compile(backend="eager")
    for model, seen in ((Chain(), True), (scripted, False), (compiled, False)):
        assert switching.is_seen(Surroundings(model), model.modules()) == seen


def test_a_model_that_asks_for_no_mode_is_run_in_its_own_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switched: list[bool] = []

    def note(model: nn.Module, training: bool) -> nn.Module:
        switched.append(training)
        return model.train(training)

    monkeypatch.setattr(replay, "_switched", note)
    edited = tk.swap(Chain().eval(), nn.Linear(4, 4), "a", "b", how="fx", example_inputs=ROWS)
    assert switched == []
    edited.train()  # and is right in both
    tk.swap(Within().eval(), nn.Linear(4, 4), "a", "b", how="fx", example_inputs=ROWS)
    assert switched


def test_reads_are_counted_in_all_threads_and_the_class_is_as_before() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Linear(4, 4))
    with switching.Reading() as outer, switching.Reading() as inner:
        thread = threading.Thread(target=lambda: model(ROWS))
        thread.start()
        thread.join()
        model.eval()
        assert not hasattr(nn.Module, "training")
        vars(model[1])["training"] = "finetune"
        assert model[1].training == "finetune"  # as it is, whatever a user has set
    assert (outer.count, inner.count) == (2, 2)
    assert "training" not in vars(nn.Module)
    assert not model[0].training


def test_the_class_is_as_before_when_readings_overlap() -> None:
    outer, later = switching.Reading(), switching.Reading()
    outer.__enter__()
    later.__enter__()
    outer.__exit__()
    assert nn.Dropout().training  # the second, begun later, still counts
    later.__exit__()
    assert (outer.count, later.count) == (0, 1)
    assert "training" not in vars(nn.Module)


@pytest.mark.parametrize("place", ["installed", "taken off"])
def test_reads_are_no_longer_counted_where_counting_broke_off(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C comes as the attribute of all modules in the process is put in, or taken off."""

    class List(list[Any]):
        def append(self, each: Any) -> None:
            super().append(each)
            if place == "installed":
                raise KeyboardInterrupt

        def remove(self, each: Any) -> None:
            super().remove(each)
            if place == "taken off":
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(switching, "_READING", List())
    try:
        with pytest.raises(KeyboardInterrupt), switching.Reading():
            pass
        assert "training" not in vars(nn.Module)
        assert not switching._READING
    finally:
        signal.signal(signal.SIGINT, before)
        if "training" in vars(nn.Module):
            del nn.Module.training
