"""Updates that break off, by Ctrl-C or for want of memory: all of a trajectory is learnt or none
of it, or whoever reads is told."""

import copy
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
import torch

import torchkoopman as tk
from tests.fitting.resumable import MAKERS, Fitter, assert_same_bits, autoencoder, batch, streamed
from tests.fitting.test_resuming import bits
from tests.observe.test_interrupts import leaves_a_block
from torchkoopman.fitting.calibration import Calibration
from torchkoopman.fitting.trainer import Trainer
from torchkoopman.observe import products
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.moments import Moments

STREAMING: dict[str, Callable[[], Fitter]] = {
    **{kind: make for kind, make in MAKERS.items() if "autoencoder" not in kind},
    "autoencoder": lambda: autoencoder(steps_per_update=0),
    "autoencoder halflife": lambda: autoencoder(
        steps_per_update=0, halflife=90.0, replay_bytes=20_000
    ),
}
CALIBRATING, LATER = 3, 7
"""A batch that is the first with rows enough for coordinates, and one with enough for products."""
PLACES = 12
"""Lines of an update at which it is interrupted."""


class CtrlC:
    """Sends SIGINT to this process before one of the lines of the package that run within."""

    def __init__(self, line: int) -> None:
        self.line, self.ran = line, 0

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        watched = "/torchkoopman/" in frame.f_code.co_filename
        if event == "line" and watched and not leaves_a_block(frame):
            if self.ran == self.line:
                os.kill(os.getpid(), signal.SIGINT)
            self.ran += 1
        return self if watched or event == "call" else None

    @contextmanager
    def within(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(before)


@pytest.fixture(autouse=True)
def few_rows_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that an update forms products."""
    monkeypatch.setattr("torchkoopman.fitting.gathered._ROWS", (100, 10))


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize("number", [CALIBRATING, LATER])
@pytest.mark.parametrize("kind", STREAMING)
def test_an_interrupted_update_has_learnt_all_of_a_trajectory_or_none(
    kind: str, number: int
) -> None:
    start = streamed(STREAMING[kind](), range(number))
    before, after = (
        streamed(copy.deepcopy(start), range(number, number + n)).state_dict() for n in (0, 1)
    )
    counting, copied, trajectory = CtrlC(-1), copy.deepcopy(start), batch(number)
    with counting.within():
        copied.update(trajectory)
    came = []
    for line in range(0, counting.ran, max(1, counting.ran // PLACES)):
        fitter = copy.deepcopy(start)
        trajectory = batch(number)
        with pytest.raises(KeyboardInterrupt), CtrlC(line).within():
            fitter.update(trajectory)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        came.append(bits(fitter.state_dict()))
    assert {*came} <= {bits(before), bits(after)}
    assert bits(after) in came, "none came while something was taken in"


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize("kind", ["dmd", "edmd", "autoencoder"])
def test_an_interrupted_merge_is_whole_or_none(kind: str) -> None:
    def pair() -> tuple[Fitter, Fitter]:
        fitters = STREAMING[kind](), STREAMING[kind]()
        for each in fitters:
            if not isinstance(each, tk.DMDFitter):  # rows of both in one frame
                each.calibrate(batch(99))
        return streamed(fitters[0], range(4)), streamed(fitters[1], range(10, 14))

    (fitter, other), (merged, another) = pair(), pair()
    before, counting = bits(fitter.state_dict()), CtrlC(-1)
    with counting.within():
        merged.merge(another)
    came = []
    for line in range(0, counting.ran, max(1, counting.ran // PLACES)):
        own, interrupt = copy.deepcopy(fitter), CtrlC(line)
        try:
            with interrupt.within():
                own.merge(other)
        except KeyboardInterrupt:
            came.append(bits(own.state_dict()))
    assert {*came} == {before, bits(merged.state_dict())}


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize("call", ["reset", "load_state_dict"])
@pytest.mark.parametrize("kind", ["dmd", "edmd halflife", "autoencoder"])
def test_what_forgets_all_or_takes_all_over_is_not_interrupted_half_way(
    kind: str, call: str
) -> None:
    start = streamed(STREAMING[kind](), range(LATER))
    given = [] if call == "reset" else [streamed(STREAMING[kind](), range(9, 14)).state_dict()]
    counting, done = CtrlC(-1), copy.deepcopy(start)
    with counting.within():
        getattr(done, call)(*given)
    allowed, came = {bits(start.state_dict()), bits(done.state_dict())}, set()
    for line in range(0, counting.ran, max(1, counting.ran // PLACES)):
        fitter = copy.deepcopy(start)
        with pytest.raises(KeyboardInterrupt), CtrlC(line).within():
            getattr(fitter, call)(*given)
        came.add(bits(fitter.state_dict()))
    assert came <= allowed


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize("call", ["reset", "load_state_dict"])
def test_nor_is_what_a_training_monitor_has_seen(call: str) -> None:
    def monitor(batches: range) -> tk.TrainingMonitor:
        torch.manual_seed(0)
        made = tk.TrainingMonitor(
            "*", fitter=tk.DMDFitter(2, halflife=100.0), sample_every=1, log_every=1
        )
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
        with made.attach(model.train()):
            for number in batches:
                model(batch(number).states["0"][:, 0])
                made.step()
        return made

    given = [] if call == "reset" else [monitor(range(3, 8)).state_dict()]
    counting, done = CtrlC(-1), monitor(range(3))
    allowed, came = {bits(done.state_dict())}, set()
    with counting.within():
        getattr(done, call)(*given)
    allowed.add(bits(done.state_dict()))
    for line in range(0, counting.ran, max(1, counting.ran // PLACES)):
        own = monitor(range(3))
        with pytest.raises(KeyboardInterrupt), CtrlC(line).within():
            getattr(own, call)(*given)
        came.add(bits(own.state_dict()))
    assert came <= allowed


@pytest.mark.usefixtures("hears_interrupts")
def test_a_training_that_was_interrupted_is_not_shown_as_the_one_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitter = autoencoder(steps_per_update=0)
    streamed(fitter, range(40)).train(500)  # so many are compared with the closed form
    assert fitter._outcome is not None
    known, steps = Trainer.step, fitter.steps

    def step(trainer: Trainer, *arguments: Any) -> dict[str, torch.Tensor]:
        if trainer.done == steps + 200:
            os.kill(os.getpid(), signal.SIGINT)
        return known(trainer, *arguments)

    before = fitter.surrogate
    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(KeyboardInterrupt):
        fitter.train(500)
    assert fitter.steps > steps + 190
    after = fitter.surrogate
    assert not torch.equal(after.operator.matrix(), before.operator.matrix())


@pytest.mark.usefixtures("hears_interrupts")
def test_a_users_own_handler_of_ctrl_c_is_called_once_the_rows_are_taken() -> None:
    fitter, seen = streamed(tk.DMDFitter(), range(2)), list[float]()
    signal.signal(signal.SIGINT, lambda *_: seen.append(fitter._own.count))
    start, counting, copied = fitter._own.count, CtrlC(-1), copy.deepcopy(fitter)
    with counting.within():
        copied.update(batch(2))
    with CtrlC(counting.ran // 2).within():
        fitter.update(batch(2))
    assert seen == [fitter._own.count]
    assert seen[0] > start


def test_other_threads_leave_the_handler_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    fitter, changed = tk.DMDFitter(), list[object]()
    monkeypatch.setattr(signal, "signal", lambda *arguments: changed.append(arguments))
    thread = threading.Thread(target=streamed, args=(fitter, range(3)))
    thread.start()
    thread.join()
    assert fitter._own.count
    assert not changed


class Breaking:
    """A product that breaks off when it is formed for the n-th time."""

    def __init__(self, when: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.broke, self.known = when, False, products.add_product
        monkeypatch.setattr(products, "add_product", self)

    def __call__(self, *arguments: Any) -> None:
        self.left -= 1
        if self.left < 0 and not self.broke:
            self.broke = True
            raise torch.OutOfMemoryError("no memory is left")
        self.known(*arguments)


def broken(fitter: Fitter, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Fitter, bytes]]:
    """Copies of a fitter, each with an update that broke off at another product, and its state."""
    for when in range(60):
        copied = copy.deepcopy(fitter)
        with monkeypatch.context() as patch:
            breaking = Breaking(when, patch)
            try:
                copied.update(batch(LATER))
            except torch.OutOfMemoryError:
                yield copied, bits(fitter.state_dict())
        if not breaking.broke:
            return


@pytest.mark.parametrize("kind", ["dmd", "dmd halflife", "edmd", "edmd halflife"])
def test_nothing_is_read_of_sums_of_different_rows(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitter = streamed(STREAMING[kind](), range(LATER))
    saved, times = fitter.state_dict(), 0
    for copied, _ in broken(fitter, monkeypatch):
        times += 1
        readings: list[Callable[[], object]] = [
            lambda c=copied: c.surrogate,
            lambda c=copied: c.between("0", "2"),
            lambda c=copied: c.state_dict(),
            lambda c=copied: streamed(c, range(8, 11)).surrogate,
            lambda c=copied: copy.deepcopy(fitter).merge(c),
        ]
        for reading in readings:
            with pytest.raises(RuntimeError, match=r"broke off while they took rows in.*reset\(\)"):
                reading()
        anew = streamed(copy.deepcopy(copied).reset(), range(4))
        assert_same_bits(
            dict(anew.surrogate.state_dict()),
            dict(streamed(STREAMING[kind](), range(4)).surrogate.state_dict()),
        )
        copied.load_state_dict(saved).update(batch(LATER))
        expected = streamed(copy.deepcopy(fitter), range(LATER, LATER + 1))
        assert bits(copied.state_dict()) == bits(expected.state_dict())
    assert times > 3


@pytest.mark.parametrize("labelled", [True, False])
def test_a_batch_for_which_there_was_no_memory_may_come_again(
    labelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It broke off before anything was taken: rows that wait go on waiting."""
    start = tk.DMDFitter()
    for number in range(2):
        start.update(batch(number, labelled))
    fitter, expected, times = *(copy.deepcopy(start) for _ in range(2)), 0

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no memory is left")

    for number in range(2, 9):
        with monkeypatch.context() as patch:
            patch.setattr(products, "room_for", full)
            before = bits(fitter.state_dict())
            try:
                fitter.update(batch(number, labelled))
            except torch.OutOfMemoryError:
                assert bits(fitter.state_dict()) == before
                times += 1
            else:
                expected.update(batch(number, labelled))
                continue
        fitter.update(batch(number, labelled))
        expected.update(batch(number, labelled))
    assert bits(fitter.state_dict()) == bits(expected.state_dict())
    assert times == 3


HOLDING: dict[str, Callable[[], Fitter]] = {
    "edmd": lambda: tk.EDMDFitter(tk.RandomFeatures(12), calibration=170),
    "dmd of wide layers": lambda: tk.DMDFitter(2),
}


@pytest.mark.parametrize("kind", HOLDING)
def test_nothing_is_read_where_not_all_rows_held_back_have_streamed(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchkoopman.fitting.dmd_wide.WIDE", 3)
    monkeypatch.setattr("torchkoopman.fitting.dmd_wide._MORE", -6)
    fitter = HOLDING[kind]()
    if isinstance(fitter, tk.DMDFitter):
        monkeypatch.setattr(Calibration, "enough", lambda self, _=1: len(self.held) == 4)
    stream, streams = type(fitter)._stream, list[Any]()

    def breaking(fitter: Any, trajectory: Any) -> None:
        streams.append(trajectory)
        if len(streams) == 3:
            raise torch.OutOfMemoryError("no memory is left")
        stream(fitter, trajectory)

    streamed(fitter, range(CALIBRATING))
    assert not fitter._own.count
    with monkeypatch.context() as patch:
        patch.setattr(type(fitter), "_stream", breaking)
        with pytest.raises(torch.OutOfMemoryError):
            fitter.update(batch(CALIBRATING))
    for reading in (lambda: fitter.surrogate, fitter.state_dict, lambda: fitter.update(batch(7))):
        with pytest.raises(RuntimeError, match="broke off"):
            reading()
    assert streamed(fitter.reset(), range(6)).surrogate.record.rows == sum(
        int(batch(number).counted().sum()) for number in range(6)
    )


@pytest.mark.parametrize("pairs", [[("a", "a"), ("a", "b"), ("b", "b")]])
def test_moments_that_broke_off_take_nothing_more(
    pairs: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"a": torch.randn(50, 3), "b": torch.randn(50, 3)}
    labels = torch.arange(50) % 3
    for make, update in (
        (Moments, lambda moments: moments.update(values)),
        (LabelledMoments, lambda moments: moments.update(values, labels)),
    ):
        moments: Any = make(pairs)
        update(moments)
        whole = copy.deepcopy(moments)
        with monkeypatch.context() as patch:
            Breaking(1, patch)
            with pytest.raises(torch.OutOfMemoryError):
                update(moments)
        for taking in (lambda: update(moments), lambda: moments.merge(whole)):  # noqa: B023
            with pytest.raises(RuntimeError, match="broke off"):
                taking()
        with pytest.raises(RuntimeError, match="broke off"):
            whole.merge(moments)
        update(whole)
        torch.testing.assert_close(
            moments.load(whole.tensors()).tensors(), whole.tensors(), rtol=0, atol=0
        )


def test_moments_that_found_no_memory_to_begin_with_others_are_still_of_no_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {"a": torch.randn(50, 3), "b": torch.randn(50, 3)}
    other = Moments([("a", "a"), ("a", "b")]).update(values)
    moments, clone, calls = Moments(other.pairs), torch.Tensor.clone, list[object]()

    def full(tensor: torch.Tensor) -> torch.Tensor:
        calls.append(tensor)
        if len(calls) == 3:
            raise MemoryError
        return clone(tensor)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "clone", full)
        with pytest.raises(MemoryError):
            moments.merge(other)
    assert moments.count == 0
    expected = other.tensors()
    torch.testing.assert_close(moments.merge(other).tensors(), expected, rtol=0, atol=0)
