"""Interrupts: Ctrl-C at any line of a probe leaves no hook and no wrong pair behind."""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
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


class Interrupt:
    """Raises KeyboardInterrupt at one of the lines of the package that run within."""

    def __init__(self, line: int) -> None:
        self.left = line
        self.raised = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        watched = "torchkoopman/observe" in frame.f_code.co_filename
        if event == "line" and watched and not self.raised:
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
