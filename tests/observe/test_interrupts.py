"""Interrupts: Ctrl-C at any line of a probe leaves no hook and no wrong pair behind."""

import dis
import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import CodeType, FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.observe.test_probes import hooks_on
from torchkoopman.observe.probes import attach
from torchkoopman.observe.trajectory import Trajectory

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
