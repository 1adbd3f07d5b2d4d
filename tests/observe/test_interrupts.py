"""Interrupts: Ctrl-C at any line of a probe leaves no hook and no wrong pair behind."""

import dis
import gc
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import CodeType, FrameType
from typing import Any, Self
from weakref import WeakKeyDictionary

import pytest
import torch
from torch import Tensor, nn

from tests.observe.test_probes import hooks_on
from torchkoopman.observe import alone, costs, surroundings
from torchkoopman.observe.alone import evaluating
from torchkoopman.observe.costs import CostMeter
from torchkoopman.observe.example import Example
from torchkoopman.observe.probes import attach
from torchkoopman.observe.products import exact_float32
from torchkoopman.observe.surroundings import Surroundings
from torchkoopman.observe.trajectory import Trajectory
from torchkoopman.unlearning.batches import answered
from torchkoopman.unlearning.heads import _gives_the_answers

STEP = 7
"""Of the lines run, each one in so many is interrupted."""


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Identity(), nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x)  # type: ignore[no-any-return]


def leaves_a_block(frame: FrameType) -> bool:
    """Whether a ``with`` block is about to be left: a signal is handled after calls and at jumps,
    never there, where it would keep a lock for good."""
    return frame.f_lasti in exits(frame.f_code)


@cache
def exits(code: CodeType) -> frozenset[int]:
    """Where ``__exit__(None, None, None)`` begins in the bytecode."""
    known = [(each.opname, each.argval, each.offset) for each in dis.get_instructions(code)]
    found = set()
    for three in zip(known, known[1:], known[2:], strict=False):
        if all(name == "LOAD_CONST" and value is None for name, value, _ in three):
            found.add(three[0][2])
    return frozenset(found)


class Interrupt:
    """Raises KeyboardInterrupt at one of the lines of the package that run within."""

    def __init__(self, line: int) -> None:
        self.left = line
        self.raised = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        watched = "torchkoopman/observe" in frame.f_code.co_filename
        if event == "line" and watched and not self.raised and not leaves_a_block(frame):
            self.left -= 1
            if self.left < 0:
                self.raised = True
                raise KeyboardInterrupt
        return self if watched or event == "call" else None

    @contextmanager
    def within(self) -> Iterator[None]:
        before = sys.gettrace()
        gc.disable()  # it may take an earlier probe's hooks off, where an interrupt is ignored
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(before)
            gc.enable()


def every(scenario: Callable[[Interrupt], None], step: int = STEP) -> int:
    """Interrupt a scenario again and again, each time later; returns how often."""
    line = 0
    while True:
        interrupt = Interrupt(line)
        scenario(interrupt)
        if not interrupt.raised:
            return line // step
        line += step


@pytest.fixture(autouse=True)
def nothing_is_kept_from_other_threads() -> Iterator[None]:
    """After interrupts another thread can stream, and so no lock was left behind."""
    yield
    got: list[Trajectory] = []
    model = Whole()
    with attach(model, "part.*") as probe:
        probe.stream_to(got.append)
        thread = threading.Thread(target=model, args=(filled(0.0),), daemon=True)
        thread.start()
        thread.join(timeout=30)
        assert len(got) == 1, "a lock is held"


def filled(value: float) -> Tensor:
    return torch.full((2, 2), value)


@pytest.mark.parametrize("first", [True, False])
def test_passes_after_an_interrupted_one_are_whole(first: bool) -> None:
    def scenario(interrupt: Interrupt) -> None:
        model, got = Whole(), list[Trajectory]()
        with attach(model, "part.*") as probe:
            probe.stream_to(got.append)
            if not first:
                model(filled(0.0))
            try:
                with interrupt.within():
                    model(filled(1.0))
            except KeyboardInterrupt:
                pass
            model(filled(2.0))
            model.part(filled(3.0))
        values = [each.states["part.0"].unique().item() for each in got]
        assert all(torch.equal(*each.states.values()) for each in got)
        assert [value for value in values if value > 1] == [2, 3]
        assert len(set(values)) == len(values)
        assert hooks_on(model) == 0
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()

    assert every(scenario) > 20


def test_an_interrupted_attach_leaves_no_hook() -> None:
    def scenario(interrupt: Interrupt) -> None:
        model = Whole()
        try:
            with interrupt.within():
                probe = attach(model, "part.*")
        except KeyboardInterrupt:
            assert hooks_on(model) == 0
        else:
            probe.detach()

    assert every(scenario, step=1) > 200


def test_an_interrupted_detach_takes_the_hooks_off() -> None:
    def scenario(interrupt: Interrupt) -> None:
        model = Whole()
        probe = attach(model, "part.*")
        hooks = hooks_on(model)
        try:
            with interrupt.within():
                probe.detach()
        except KeyboardInterrupt:
            assert hooks_on(model) in (0, hooks)  # all, if it had not begun
        probe.detach()
        del probe
        assert hooks_on(model) == 0

    assert every(scenario) > 2


def test_passes_after_a_signal_are_whole_and_other_threads_go_on() -> None:
    """As Ctrl-C comes: a signal, at any instruction that handles one."""
    model, got = Whole(), list[Trajectory]()
    interrupted = 0

    def interrupt(number: int, frame: FrameType | None) -> None:
        if frame is not None and "torchkoopman" in frame.f_code.co_filename:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with attach(model, "part.*") as probe:
            probe.stream_to(got.append)
            for call in range(600):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 2e-5 + 1e-6 * (call % 400))
                    model(filled(float(call)))
                except KeyboardInterrupt:
                    interrupted += 1
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            taken = len(got)
            thread = threading.Thread(target=model, args=(filled(-1.0),), daemon=True)
            thread.start()
            thread.join(timeout=30)
            assert len(got) == taken + 1, "a lock is held"
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 20
    assert taken > 100
    assert all(torch.equal(*each.states.values()) for each in got)


def ctrl_c(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)


class Turned(nn.Sequential):
    """Does something when its mode is switched, as models that merge weights do."""

    then: Callable[[], None] = staticmethod(lambda: None)
    when = True

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if mode == self.when:
            self.then()
        return self


def fails() -> None:
    raise ValueError("no memory for the merged weights")


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize("when", [True, False])
@pytest.mark.parametrize(("then", "kind"), [(ctrl_c, KeyboardInterrupt), (fails, ValueError)])
def test_modes_come_back_where_switching_them_broke_off(
    then: Callable[[], None], kind: type[BaseException], when: bool
) -> None:
    model = Turned(nn.Dropout(), nn.BatchNorm1d(2).eval(), nn.Sequential(nn.Dropout().eval()))
    before = [module.training for module in model.modules()]
    model.then, model.when = then, when
    for _ in range(2):
        with pytest.raises(kind), evaluating(model):
            assert not any(module.training for module in model.modules())
        assert [module.training for module in model.modules()] == before


@pytest.mark.usefixtures("hears_interrupts")
def test_precision_comes_back_where_an_interrupt_comes_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Backend:
        def __init__(self) -> None:
            self.set = ["tf32"]

        @property
        def fp32_precision(self) -> str:
            return self.set[-1]

        @fp32_precision.setter
        def fp32_precision(self, value: str) -> None:
            if value != "ieee":
                ctrl_c()
            self.set.append(value)

    backends = Backend(), Backend()
    for each, name in zip(backends, ("cuda", "mkldnn"), strict=True):
        monkeypatch.setattr(getattr(torch.backends, name), "matmul", each)
    with pytest.raises(KeyboardInterrupt), exact_float32():
        pass
    assert [each.fp32_precision for each in backends] == ["tf32", "tf32"]


@pytest.mark.usefixtures("hears_interrupts")
def test_what_a_model_can_reach_comes_back_where_an_interrupt_comes_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Whole()
    model.held = [1]  # type: ignore[assignment]

    def run() -> None:
        with Surroundings(model).kept():
            model.held.append(2)  # type: ignore[operator]
            torch.rand(1)

    draws = torch.get_rng_state()
    monkeypatch.setattr(surroundings, "_same_entries", interrupted(surroundings._same_entries))
    with pytest.raises(KeyboardInterrupt):
        run()
    assert model.held == [1]
    assert torch.equal(torch.get_rng_state(), draws)


def interrupted(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, with a Ctrl-C before each call."""

    def called(*arguments: Any) -> Any:
        ctrl_c()
        return function(*arguments)

    return called


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize(
    "room", ["torchkoopman.flows.untouched", "torchkoopman.inspecting.inspect"]
)
def test_random_states_come_back_where_an_interrupt_comes_meanwhile(
    room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(room)
    name = "untouched" if room.endswith("untouched") else "_same_random_states"
    arguments = [nn.BatchNorm1d(2)] if name == "untouched" else []

    def run() -> None:
        with getattr(module, name)(*arguments):
            torch.rand(1)

    draws = torch.get_rng_state()
    monkeypatch.setattr(module, "set_random_states", interrupted(module.set_random_states))
    with pytest.raises(KeyboardInterrupt):
        run()
    assert torch.equal(torch.get_rng_state(), draws)


@pytest.mark.usefixtures("hears_interrupts")
def test_a_meter_of_costs_that_was_interrupted_as_it_began_leaves_nothing() -> None:
    class Interrupting(nn.Identity):
        def register_forward_hook(self, *arguments: Any, **options: Any) -> Any:
            ctrl_c()
            return super().register_forward_hook(*arguments, **options)

    model = nn.Sequential(nn.Identity(), Interrupting(), nn.Identity())
    with pytest.raises(KeyboardInterrupt), CostMeter(model):
        pass
    assert hooks_on(model) == 0
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch._C._len_torch_dispatch_stack() == 0


def test_a_meter_of_costs_that_has_no_memory_as_it_begins_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    model = Whole()
    monkeypatch.setattr(costs, "unfused", full)
    with pytest.raises(MemoryError), CostMeter(model):
        pass
    assert hooks_on(model) == 0


def test_modes_come_back_where_there_is_no_memory_to_note_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Full(WeakKeyDictionary[Any, Any]):
        def __setitem__(self, key: Any, value: Any) -> None:
            if len(self) == 2:
                raise MemoryError
            super().__setitem__(key, value)

    model = nn.Sequential(nn.Dropout(), nn.Dropout(), nn.Dropout().eval())
    monkeypatch.setattr(alone, "_EVALUATING", Full())
    with pytest.raises(MemoryError), evaluating(model):
        pass
    assert [module.training for module in model.modules()] == [True, True, True, False]


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize(
    "ask",
    [answered, lambda model, x: _gives_the_answers(model, model, Example.of(x))],
    ids=["answers", "head"],
)
def test_no_hook_stays_on_a_model_that_is_asked_for_its_answers(ask: Callable[..., Any]) -> None:
    """One of them puts random numbers in the place of a layer's output."""

    class Interrupting(nn.Linear):
        def register_forward_hook(self, *arguments: Any, **options: Any) -> Any:
            handle = super().register_forward_hook(*arguments, **options)
            ctrl_c()
            return handle

    model, x = Interrupting(2, 3), torch.ones(4, 2)
    with pytest.raises(KeyboardInterrupt):
        ask(model, x)
    assert hooks_on(model) == 0
    assert torch.equal(model(x), model(x))


def test_random_states_come_back_also_where_the_rest_cannot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> bool:
        raise MemoryError

    model = Whole()
    model.held = [1]  # type: ignore[assignment]
    around, draws = Surroundings(model), torch.get_rng_state()
    torch.rand(1)
    with monkeypatch.context() as patch:
        patch.setattr(surroundings, "_same_entries", full)
        with pytest.raises(MemoryError):
            around.restore()
    assert torch.equal(torch.get_rng_state(), draws)
