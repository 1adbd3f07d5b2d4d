"""Threads, interrupts, calls within calls: a trajectory is of one pass, and none goes uncounted."""

import gc
import random
import sys
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.observe.test_probes import hooks_on
from torchkoopman.fitting.dmd import DMDFitter
from torchkoopman.observe.probe import Probe
from torchkoopman.observe.probes import attach
from torchkoopman.observe.trajectory import Trajectory

CALLS = 60


class Net(nn.Module):
    """Its output tells the input; each part can wait, fail, or call the whole again."""

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"a": nn.Identity(), "b": nn.Identity()})
        self.part = Part(self.body, pause)
        self.error: BaseException | None = None
        self.again = 0

    def forward(self, x: Tensor, again: int = 0) -> Tensor:
        x = self.part(x, self, again)
        if self.error is not None:
            raise self.error
        return x


class Part(nn.Module):
    def __init__(self, layers: nn.ModuleDict, pause: float) -> None:
        super().__init__()
        self.a, self.b, self.pause = layers["a"], layers["b"], pause

    def forward(self, x: Tensor, whole: nn.Module | None = None, again: int = 0) -> Tensor:
        x = self.a(x)
        if self.pause:
            time.sleep(self.pause * random.random())
        if again:
            assert whole is not None
            whole(x + 1, again - 1)
        return self.b(x)  # type: ignore[no-any-return]


LAYERS = ["part.a", "part.b"]


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Run ``work(0)``, …, ``work(count - 1)`` at once; what one of them raises is raised here."""
    raised: list[BaseException] = []
    start = threading.Barrier(count, timeout=60)

    def run(number: int) -> None:
        try:
            start.wait()
            work(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


@pytest.mark.parametrize("pause", [0.0, 0.001])
@pytest.mark.parametrize("threads", [2, 4, 8])
def test_no_trajectory_mixes_two_threads_and_none_is_lost(threads: int, pause: float) -> None:
    model, got = Net(pause), list[Trajectory]()
    with attach(model, LAYERS) as probe:
        probe.stream_to(got.append)

        def work(number: int) -> None:
            for call in range(CALLS):
                with probe.labels(torch.full((3,), number)):
                    model(torch.full((3, 2), float(1000 * number + call)))

        in_threads(threads, work)
        report = probe.report()
    seen = []
    for each in got:
        a, b = each.states.values()
        assert torch.equal(a, b)
        assert a.unique().numel() == 1
        assert each.labels is not None
        assert each.labels.unique().tolist() == [a.unique().item() // 1000]
        seen.append(a.unique().item())
    assert sorted(seen) == [1000 * n + call for n in range(threads) for call in range(CALLS)]
    assert report.forwards == report.trajectories == threads * CALLS
    assert (report.unpaired, report.interrupted, report.skipped) == (0, 0, {})
    assert [stream.rows for stream in report.streams] == [3 * threads * CALLS] * 2


def test_a_fit_from_four_threads_is_that_from_one() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = torch.randn(4, 10, 30, 5, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5))
    together, alone = DMDFitter(), DMDFitter()
    with attach(model, "*") as probe:
        probe.stream_to(together)
        in_threads(4, lambda number: [model(x) for x in batches[number]])
    with attach(model, "*") as probe:
        probe.stream_to(alone)
        for x in batches.flatten(0, 1):
            model(x)
    expected = alone.surrogate.operator.matrix(1.0)
    assert together.surrogate.record.rows == alone.surrogate.record.rows == 1200
    assert torch.allclose(together.surrogate.operator.matrix(1.0), expected, atol=1e-6)


def test_listeners_are_called_one_at_a_time() -> None:
    model, inside, most = Net(), list[int](), list[int]()

    def listen(trajectory: Trajectory) -> None:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.001)
        inside.pop()

    with attach(model, LAYERS) as probe:
        probe.stream_to(listen)
        in_threads(4, lambda number: [model(torch.zeros(1, 2)) for _ in range(10)])
    assert len(most) == 40
    assert max(most) == 1


@pytest.mark.parametrize("how", ["itself", "partial", "function"])
def test_one_fitter_of_several_probes_in_threads_learns_what_it_learns_in_one(how: str) -> None:
    """Its sums are read, added to and written back: of two threads at once one would be lost."""
    generator = torch.Generator().manual_seed(0)
    batches = torch.randn(4, 25, 20, 5, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = [nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5)) for _ in range(4)]
    together, alone = DMDFitter(), DMDFitter()
    ways: dict[str, Any] = {
        "itself": together,
        "partial": partial(together.update),
        "function": lambda trajectory: together.update(trajectory),
    }

    def work(number: int) -> None:
        with attach(models[number], "*") as probe:
            probe.stream_to(ways[how])
            for x in batches[number]:
                models[number](x)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        in_threads(4, work)
    finally:
        sys.setswitchinterval(interval)
    for model, some in zip(models, batches, strict=True):
        with attach(model, "*") as probe:
            probe.stream_to(alone)
            for x in some:
                model(x)
    found, expected = together.surrogate, alone.surrogate
    assert found.record.rows == expected.record.rows == 2000
    assert torch.allclose(found.operator.matrix(1.0), expected.operator.matrix(1.0), atol=1e-6)


def test_listeners_of_several_probes_wait_for_their_own_turn_only() -> None:
    """One listener in two threads: one at a time. Two listeners: at the same time."""

    class Listener:
        def __init__(self) -> None:
            self.inside, self.most = 0, 0

        def update(self, trajectory: Trajectory) -> None:
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(0.002)
            self.inside -= 1

    shared, both = Listener(), threading.Barrier(2)

    def work(number: int) -> None:
        model = Net()
        with attach(model, LAYERS) as probe:
            probe.stream_to(shared, lambda trajectory: both.wait(60))
            for _ in range(10):
                model(torch.zeros(1, 2))

    in_threads(2, work)
    assert shared.most == 1


def test_a_listener_may_run_the_model_itself() -> None:
    model, got = Net(), list[float]()

    def listen(trajectory: Trajectory) -> None:
        value = trajectory.states["part.a"].mean().item()
        got.append(value)
        if value < 3:
            model(torch.full((2, 2), value + 1))

    with attach(model, LAYERS) as probe:
        probe.stream_to(listen)
        in_threads(2, lambda number: model(torch.zeros(2, 2)))
    assert sorted(got) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert probe.report().interrupted == 0


def test_labels_and_masks_of_one_thread_do_not_go_with_the_passes_of_another() -> None:
    model, got = Net(), list[Trajectory]()
    with attach(model, LAYERS) as probe:
        probe.stream_to(got.append)
        with probe.labels(torch.zeros(3, dtype=torch.long)):
            in_threads(1, lambda number: model(torch.ones(3, 2)))
            model(torch.zeros(3, 2))
    assert got[0].labels is None
    assert got[1].labels is not None


@pytest.mark.parametrize("what", ["labels", "mask"])
def test_labels_and_masks_that_go_with_no_pass_are_warned_of(what: str) -> None:
    model = Net()
    with attach(model, LAYERS) as probe:
        accompany = getattr(probe, what)
        with (
            pytest.warns(RuntimeWarning, match=rf"no forward pass ran inside `with probe\.{what}"),
            accompany(torch.zeros(3, dtype=torch.long)),
        ):
            in_threads(1, lambda number: model(torch.ones(3, 2)))
        with pytest.raises(ZeroDivisionError), accompany(torch.zeros(3, dtype=torch.long)):
            raise ZeroDivisionError


def interrupted(model: Net, error: BaseException) -> None:
    model.error = error
    with pytest.raises(type(error)):
        model(torch.full((2, 2), 7.0))
    model.error = None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, ValueError])
def test_parts_called_alone_after_an_interrupt_stream_and_the_interrupt_is_counted(
    error: type[BaseException],
) -> None:
    model, got = Net(), list[Trajectory]()
    with attach(model, LAYERS) as probe:
        probe.stream_to(got.append)
        interrupted(model, error())
        assert probe.report().interrupted == 1, "before anything else runs"
        for call in range(5):
            model.part(torch.full((2, 2), float(call)))
        report = probe.report()
    assert [each.states["part.a"].mean().item() for each in got] == [0, 1, 2, 3, 4]
    assert all(torch.equal(*each.states.values()) for each in got)
    assert (report.forwards, report.trajectories, report.interrupted) == (6, 5, 1)


def test_layers_called_alone_after_an_interrupt_are_outside_and_nothing_is_kept() -> None:
    model, kept = Net(), list[weakref.ref[Tensor]]()
    with attach(model, LAYERS) as probe:
        probe.stream_to(lambda trajectory: None)
        interrupted(model, KeyboardInterrupt())
        forward = probe._pairing._passes.current()
        assert forward is not None
        kept += [weakref.ref(reading.state) for reading in forward.readings.values()]
        del forward
        for _ in range(3):
            model.part.a(torch.zeros(2, 2))
        gc.collect()
        report = probe.report()
    assert report.skipped == {"outside": 3}
    assert report.interrupted == 1
    assert len(kept) == 2
    assert all(each() is None for each in kept)


def test_an_interrupt_that_the_model_catches_further_out_makes_no_wrong_pair() -> None:
    class Retrying(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Part(nn.ModuleDict({"a": nn.Identity(), "b": nn.Identity()}), 0.0)

        def forward(self, x: Tensor) -> Tensor:
            try:
                self.part.a(x)
                raise KeyboardInterrupt
            except KeyboardInterrupt:
                return self.part(x + 1)  # type: ignore[no-any-return]

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Net()

        def forward(self, x: Tensor) -> Tensor:
            self.inner.error = KeyboardInterrupt()
            try:
                self.inner(x)
            except KeyboardInterrupt:
                self.inner.error = None
            return self.inner(x + 1)  # type: ignore[no-any-return]

    model, got = Outer(), list[Trajectory]()
    with attach(model, ["inner.part.a", "inner.part.b"]) as probe:
        probe.stream_to(got.append)
        model(torch.zeros(2, 2))
        report = probe.report()
    assert report.forwards == report.trajectories + report.unpaired + report.interrupted == 1
    assert all(
        torch.equal(each.states["inner.part.a"], each.states["inner.part.b"]) for each in got
    )
    model_again, again = Retrying(), list[Trajectory]()
    with attach(model_again, ["part.a", "part.b"]) as probe:
        probe.stream_to(again.append)
        model_again(torch.zeros(2, 2))
    assert [each.layers for each in again] == [("part.a#0", "part.a#1", "part.b")]


def test_a_model_that_calls_itself_gives_a_trajectory_for_each_call() -> None:
    model, got = Net(), list[Trajectory]()
    with attach(model, LAYERS) as probe:
        probe.stream_to(got.append)
        model(torch.zeros(2, 2), 2)
        report = probe.report()
    assert [each.states["part.a"].mean().item() for each in got] == [2, 1, 0]
    assert all(torch.equal(*each.states.values()) for each in got)
    assert (report.forwards, report.trajectories) == (3, 3)
    assert (report.unpaired, report.interrupted) == (0, 0)


def test_an_interrupted_call_within_a_call_leaves_the_outer_one_whole() -> None:
    class Trying(Net):
        def forward(self, x: Tensor, again: int = 0) -> Tensor:
            x = self.part.a(x)
            if again:
                self.error = KeyboardInterrupt()
                with pytest.raises(KeyboardInterrupt):
                    self(x + 1)
                self.error = None
            if self.error is not None:
                raise self.error
            return self.part.b(x)  # type: ignore[no-any-return]

    model, got = Trying(), list[Trajectory]()
    with attach(model, LAYERS) as probe:
        probe.stream_to(got.append)
        model(torch.zeros(2, 2), 1)
        report = probe.report()
    assert len(got) == 1
    assert torch.equal(*got[0].states.values())
    assert (report.forwards, report.interrupted, report.unpaired) == (2, 1, 0)


def test_a_pass_in_a_thread_that_died_is_counted_and_let_go() -> None:
    model, got = Net(), list[Trajectory]()
    with attach(model, LAYERS) as probe:
        probe.stream_to(got.append)
        model.error = SystemExit()
        for _ in range(20):
            with pytest.raises(SystemExit):
                in_threads(1, lambda number: model(torch.zeros(2, 2)))
        model.error = None
        model(torch.ones(2, 2))
        assert len(probe._pairing._passes._under_way) == 0
        report = probe.report()
    assert len(got) == 1
    assert (report.forwards, report.interrupted, report.trajectories) == (21, 20, 1)


def test_a_report_amid_a_pass_does_not_call_it_interrupted() -> None:
    model, reports = Net(), []
    with attach(model, LAYERS) as probe:
        model.part.b.register_forward_hook(lambda *_: reports.append(probe.report()))
        model(torch.zeros(2, 2))
        in_threads(2, lambda number: [model(torch.zeros(2, 2)) for _ in range(20)])
    assert all(report.interrupted == 0 for report in reports)
    assert probe.report().trajectories == 41


def test_no_hook_is_left_and_no_pair_is_wrong_after_300_failures() -> None:
    errors = [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, OSError]
    model, wrong = Net(), list[Trajectory]()

    def throw(error: BaseException) -> None:
        raise error

    def fail(probe: Probe, number: int, error: BaseException) -> None:
        probe.stream_to(
            lambda each: None if torch.equal(*each.states.values()) else wrong.append(each)
        )
        hook = None
        match number % 4:
            case 0:
                interrupted(model, error)
                model.part(torch.zeros(2, 2))
                raise error
            case 1:
                model.error = error
                in_threads(2, lambda _: model(torch.zeros(2, 2)))
            case 2:
                probe.stream_to(lambda each: throw(error))
            case 3:
                hook = model.part.b.register_forward_pre_hook(lambda *_: throw(error))
        try:
            model(torch.zeros(2, 2))
        finally:
            if hook is not None:
                hook.remove()

    for number in range(300):
        error = errors[number % len(errors)]()
        with pytest.raises(type(error)), attach(model, LAYERS) as probe:
            fail(probe, number, error)
        report = probe.report()
        ended = report.trajectories + report.unpaired + report.interrupted
        assert report.forwards == ended
        model.error = None
        assert hooks_on(model) == 0
    assert wrong == []


def test_data_parallel_is_refused_at_attach_with_the_way_out() -> None:
    inner = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    for model, layers in (
        (nn.DataParallel(inner), "module.*"),
        (nn.Sequential(nn.DataParallel(inner)), "0.module.*"),
    ):
        with pytest.raises(ValueError, match=r"nn\.DataParallel runs copies.*`\.module`"):
            attach(model, layers)
        assert hooks_on(model) == 0


def test_replicas_of_data_parallel_are_refused_when_they_run() -> None:
    """What nn.DataParallel does on several devices, without devices."""
    model, got = nn.Sequential(nn.Identity(), nn.Identity()), list[Trajectory]()

    def replica() -> nn.Module:
        outer = model._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        for name, child in model.named_children():
            twin = child._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
            outer._modules[name] = twin
        return outer  # type: ignore[no-any-return]

    with attach(model, "*") as probe:
        probe.stream_to(got.append)
        replicas = [replica() for _ in range(2)]
        with pytest.raises(RuntimeError, match=r"replica of the Sequential.*on one device"):
            in_threads(2, lambda number: replicas[number](torch.zeros(2, 2)))
        with pytest.raises(RuntimeError, match="replica of the Identity"):
            replicas[0][0](torch.zeros(2, 2))
        model(torch.zeros(2, 2))
    assert len(got) == 1


@pytest.mark.parametrize("collecting", [True, False])
def test_nothing_is_collected_while_the_stacks_of_threads_are_read(
    collecting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else threads that begin or end meanwhile hang in Python 3.11 (python/cpython#106883)."""
    read, seen, model = sys._current_frames, list[bool](), Net(0.001)

    def watched() -> Any:
        seen.append(gc.isenabled())
        return read()

    monkeypatch.setattr(sys, "_current_frames", watched)
    was = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        with attach(model, LAYERS) as probe:
            in_threads(3, lambda number: [model(torch.zeros(1, 2)) for _ in range(5)])
            while_running = len(seen)
            probe.report()
        after = gc.isenabled()
    finally:
        (gc.enable if was else gc.disable)()
    assert 0 < while_running < len(seen), "read when a pass begins, and for a report"
    assert not any(seen)
    assert after == collecting
