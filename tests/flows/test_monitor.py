"""FlowMonitor: attractors through a training, a model left as it was, and resumed trainings."""

from __future__ import annotations

import copy
import math
import random
import warnings
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torchkoopman_tensorboard import EventFolder

import torchkoopman as tk
from torchkoopman.flows import Flow, FlowMonitor

if TYPE_CHECKING:
    from pathlib import Path

mpl.use("Agg")


class Gain(nn.Module):
    """``tanh(a x)``: 0 attracts for a below 1, and two points beside it above."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.a * x)

    def become(self, a: float) -> None:
        with torch.no_grad():
            self.a.fill_(a)


def line(count: int = 20, low: float = -1.0) -> Tensor:
    return torch.linspace(low, 1, count, dtype=torch.float64)[:, None]


def resting(a: float) -> float:
    """The positive x with x = tanh(a x)."""
    x = 1.0
    for _ in range(10_000):
        x = float(np.tanh(a * x))
    return x


def test_attractors_are_born_move_and_are_gone_as_the_map_says() -> None:
    model = Gain(0.5)
    monitor = FlowMonitor(Flow, {"line": line()}, log_every=1)
    with monitor.attach(model):
        assert monitor.latest.tracks.tolist() == monitor.latest.born.tolist() == [0]
        model.become(2.0)
        monitor.step()
        look = monitor.latest
        # 0 is where it was and repels, so what lived there is gone.
        assert (look.gone.tolist(), look.born.tolist()) == ([0], [1, 2])
        assert sorted(look.attractors.flatten().tolist()) == pytest.approx(
            [-resting(2.0), resting(2.0)], abs=1e-6
        )
        slope = 2.0 * (1 - resting(2.0) ** 2)
        torch.testing.assert_close(look.radii, look.radii.new_full((2,), slope), atol=1e-6, rtol=0)
        before = dict(zip(look.tracks.tolist(), look.attractors.flatten().tolist(), strict=True))
        model.become(1.5)
        monitor.step()
        look = monitor.latest
        assert sorted(look.tracks.tolist()) == [1, 2]
        assert len(look.gone) == len(look.born) == 0
        moved = (resting(2.0) - resting(1.5)) / look.spread
        torch.testing.assert_close(look.moved, look.moved.new_full((2,), moved), atol=1e-6, rtol=0)
        for track, point in zip(look.tracks.tolist(), look.attractors.flatten(), strict=True):
            assert point.sign() == torch.tensor(before[track]).sign()
        model.become(0.5)
        monitor.step()
        look = monitor.latest
    # Both come to 0 now: one of them is followed on.
    assert len(look.tracks) == len(look.gone) == 1
    assert {*look.tracks.tolist(), *look.gone.tolist()} == {1, 2}
    assert look.known == 3
    assert monitor.history.born.tolist() == [1, 2, 0, 0]
    assert monitor.history.gone.tolist() == [0, 1, 0, 1]
    assert monitor.history.living.tolist() == [1, 2, 2, 1]


def test_the_picture_of_a_training_has_a_line_for_each_set_of_starts() -> None:
    model = Gain(0.5)
    monitor = FlowMonitor(Flow, {"line": line(), "right": line(9, 0.1)}, log_every=1)
    with monitor.attach(model):
        model.become(2.0)
        monitor.step()
    ax = monitor.history.plot(plt.subplots()[1])
    drawn = {each.get_label(): each.get_xydata().tolist() for each in ax.lines}
    assert drawn == {"line": [[0, 1], [1, 2]], "right": [[0, 1], [1, 1]]}
    plt.close("all")
    text = str(monitor.history).splitlines()
    assert text[0].split()[:3] == ["step", "from", "line"]
    assert text[2].split()[:3] == ["1", "2", "1"]


class Two(nn.Module):
    """Halfway to one point for positive states, and to another for the others."""

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.tensor([-1.0, 1.0], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        target = torch.where(x > 0, self.points[1], self.points[0])
        return x + 0.5 * (target - x)


def test_what_a_new_flow_makes_of_an_attractor_is_followed_not_what_is_nearest() -> None:
    model = Two()
    monitor = FlowMonitor(Flow, {"line": line(40, low=-1.01)})
    with monitor.attach(model):
        first = monitor.latest
        model.points.data = torch.tensor([-0.5, 5.0], dtype=torch.float64)
        monitor.step(1)
        look = monitor.look()
    was, now = (
        {int(t): round(float(x), 6) for t, x in zip(each.tracks, each.attractors, strict=True)}
        for each in (first, look)
    )
    # What was at 1 is at 5 now, though -0.5 is nearer.
    assert {was[track]: now[track] for track in was} == {-1.0: -0.5, 1.0: 5.0}
    assert sorted(look.moved.tolist()) == pytest.approx([0.5 / look.spread, 4 / look.spread])


def test_each_set_of_starts_is_told_by_itself() -> None:
    def step(x: Tensor) -> Tensor:
        return torch.where(x.abs() > 5, 2 * x, torch.tanh(2 * x))

    starts = {"right": line(10, 0.1), "both": line(), "far": line(4, 0.5) * 20}
    monitor = FlowMonitor(lambda m: Flow(step), starts)
    with monitor.attach(nn.Identity()):
        look = monitor.latest
    assert look.reached.sum(1).tolist() == [1, 2, 0]
    assert look.converged.tolist() == [1, 1, 0]
    assert look.diverged.tolist() == [0, 0, 1]
    assert look.basins.sum(1).tolist() == [10, 20, 0]
    apart = look.chamfer[0, 1].item() * look.spread
    assert apart == pytest.approx(tk.flows.chamfer(*map(look.attractors_from, ("right", "both"))))
    assert apart == pytest.approx(resting(2.0) / 2)  # there 0, back the mean of 0 and 2 x
    assert look.chamfer[:, 2].isnan().all()
    assert "both: 2 attractors, 100.0% converged, 0.0% diverged" in str(look)
    with pytest.raises(ValueError, match="not 'noise'"):
        look.attractors_from("noise")


class Auto(nn.Module):
    """An autoencoder with all that an evaluation could change."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))
        self.decode = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Dropout(), nn.Linear(8, 6))
        self.register_buffer("calls", torch.zeros(()), persistent=False)
        self.encode[1].eval()  # frozen in a training

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.decode(self.encode(x))
        return out

    def field(self) -> Flow:
        def decode(z: Tensor) -> Tensor:
            self.calls += 1
            out: Tensor = self.decode(z)
            return out

        return Flow.of_autoencoder(self.encode, decode)


X = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
NOISE = torch.randn(30, 2, generator=torch.Generator().manual_seed(2))


def starts() -> dict[str, Any]:
    return {"train": lambda model: model.encode(X[:20]), "noise": NOISE}


def fresh() -> tuple[Auto, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = Auto()
    return model, torch.optim.Adam(model.parameters(), lr=1e-2)


def train(
    model: Auto, optimizer: torch.optim.Optimizer, steps: int, monitor: FlowMonitor | None = None
) -> None:
    for _ in range(steps):
        noisy = X + 0.1 * torch.randn_like(X)
        optimizer.zero_grad()
        (model(noisy) - X).square().mean().backward()
        optimizer.step()
        if monitor is not None:
            monitor.step()


def test_a_training_is_the_same_to_the_last_bit_whether_it_is_looked_at_or_not() -> None:
    plain, optimizer = fresh()
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    train(plain, optimizer, 12)
    drawn = torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
    watched, optimizer = fresh()
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    monitor = FlowMonitor(Auto.field, starts(), log_every=3, steps=50)
    with monitor.attach(watched):
        train(watched, optimizer, 12, monitor)
    assert monitor.history.steps.tolist() == [0, 3, 6, 9, 12]
    for name, each in plain.state_dict().items():
        assert torch.equal(each, watched.state_dict()[name]), name
    assert torch.equal(plain.calls, watched.calls)
    assert torch.equal(torch.rand(3), drawn[0])
    assert (random.random(), np.random.rand()) == drawn[1:]  # noqa: NPY002
    gradients = zip(plain.parameters(), watched.parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in gradients)
    assert [m.training for m in plain.modules()] == [m.training for m in watched.modules()]
    assert not watched.encode[1].training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in watched.modules())


@pytest.mark.parametrize(
    "around",
    [
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        torch.inference_mode,
        torch.no_grad,
        lambda: torch.random.fork_rng(devices=[]),
    ],
    ids=["autocast", "inference_mode", "no_grad", "other_numbers"],
)
def test_what_stands_around_a_step_changes_nothing_of_a_look(around: Any) -> None:
    model, optimizer = fresh()
    train(model, optimizer, 3)
    looks = []
    for within in (lambda: torch.enable_grad(), around):
        monitor = FlowMonitor(Auto.field, starts(), steps=50)
        with within():
            torch.rand(int(torch.randint(9, ())))
            looks.append(monitor.attach(model).latest)
    assert repr(looks[0]) == repr(looks[1])
    assert torch.equal(looks[0].attractors, looks[1].attractors)


def test_a_probe_that_is_on_sees_nothing_of_a_look() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2), nn.Tanh())
    with tk.attach(model, ["0", "2"]) as probe:
        seen: list[object] = []
        probe.stream_to(seen.append)
        FlowMonitor(Flow, {"noise": NOISE}, steps=20).attach(model)
        assert not seen
        model(NOISE)
        assert len(seen) == 1


@pytest.mark.parametrize("by", ["memory", "file"])
def test_a_resumed_training_is_looked_at_as_an_unbroken_one(by: str, tmp_path: Path) -> None:
    model, optimizer = fresh()
    whole = FlowMonitor(Auto.field, starts(), log_every=5, steps=100)
    with whole.attach(model):
        train(model, optimizer, 7, whole)
        kept = copy.deepcopy((model.state_dict(), optimizer.state_dict(), whole.state_dict()))
        whole.save(tmp_path / "monitor.safetensors")
        numbers = torch.get_rng_state()
        train(model, optimizer, 8, whole)
    model, optimizer = fresh()
    model.load_state_dict(kept[0])
    optimizer.load_state_dict(kept[1])
    resumed = FlowMonitor(Auto.field, starts(), log_every=5, steps=100)
    if by == "memory":
        resumed.load_state_dict(kept[2])
    else:
        resumed.load(tmp_path / "monitor.safetensors")
    torch.set_rng_state(numbers)
    with resumed.attach(model, 7):
        train(model, optimizer, 8, resumed)
    assert resumed.history.steps.tolist() == [0, 5, 10, 15]
    one, other = whole.state_dict(), resumed.state_dict()
    assert flattened(one) == flattened(other)
    assert resumed.latest.known >= 1


def flattened(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: flattened(each) for name, each in state.items()}
    return repr(state.tolist()) if isinstance(state, Tensor) else state


def test_noise_that_was_drawn_anew_is_refused_when_a_training_is_resumed() -> None:
    model = Gain(2.0)
    monitor = FlowMonitor(Flow, {"a": line(), "b": line(5)})
    with monitor.attach(model):
        monitor.step(3)
    state = monitor.state_dict()
    other = FlowMonitor(Flow, {"a": line(), "b": line(5) + 0.1}).load_state_dict(state)
    with pytest.raises(ValueError, match=r"is of other starts \(b\)"):
        other.attach(model)
    same = FlowMonitor(Flow, {"a": line(), "b": line(5)}).load_state_dict(state)
    with pytest.raises(ValueError, match="after step 4, but the state of the FlowMonitor is of st"):
        same.attach(model, 4)
    assert same.attach(model, 3).attached
    same.close()
    assert same.attach(model, 0).history.steps.tolist() == [0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": 50}, r"is of steps=100, and this one has 50"),
        ({"steps": 100, "tolerance": 1e-3}, r"is of tolerance=1e-05, and this one has 0.001"),
        ({"steps": 100, "merge": 0.1}, r"is of merge=0.001"),
        ({"steps": 100, "far": 10}, r"is of far=1000000"),
    ],
)
def test_a_state_of_points_that_were_found_otherwise_is_refused(
    given: dict[str, float], said: str
) -> None:
    model = Auto()
    monitor = FlowMonitor(Auto.field, starts(), steps=100)
    with monitor.attach(model):
        monitor.step()
    other = FlowMonitor(Auto.field, starts(), **given)
    other.load_state_dict(monitor.state_dict())
    with pytest.raises(ValueError, match=said):
        other.attach(model, 1)
    assert not other.attached


@pytest.mark.parametrize("value", ["a", None, True, 0.0, -1, math.nan])
@pytest.mark.parametrize("name", ["tolerance", "merge", "far"])
def test_an_option_that_is_no_positive_number_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"FlowMonitor got {name}={value!r}; give a positive"):
        FlowMonitor(Auto.field, starts(), **{name: value})


def test_a_default_that_is_given_is_no_other_setting() -> None:
    model = Auto()
    monitor = FlowMonitor(Auto.field, starts(), steps=100)
    with monitor.attach(model):
        monitor.step()
    same = FlowMonitor(Auto.field, starts(), steps=100, tolerance=1e-5, far=1_000_000)
    with same.load_state_dict(monitor.state_dict()).attach(model, 1):
        assert same.history.steps.tolist() == [0]


def test_damaged_states_are_refused_and_change_nothing() -> None:
    monitor = FlowMonitor(Flow, {"a": line()})
    with monitor.attach(Gain(2.0)):
        monitor.step(1)
        state = monitor.state_dict()
        with pytest.raises(RuntimeError, match=r"before attach\(\)"):
            monitor.load_state_dict(state)
        with pytest.raises(RuntimeError, match="before it forgets"):
            monitor.reset()
    other = FlowMonitor(Flow, {"a": line()})
    broken = {**state, "history": {**state["history"], "moved": torch.zeros(7)}}
    for wrong, message in (
        ({}, "version 1"),
        (broken, "damaged"),
        ({**state, "latest": {"step": 3}}, "damaged"),
        ({**state, "version": 2}, "version 1"),
    ):
        with pytest.raises(ValueError, match=message):
            other.load_state_dict(wrong)
    with pytest.raises(TypeError, match="it got a list"):
        other.load_state_dict([])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has not looked yet"):
        _ = other.latest


def test_a_training_that_breaks_goes_on_with_one_warning() -> None:
    model = Gain(2.0)
    monitor = FlowMonitor(Flow, {"own": lambda m: m(line())}, log_every=1)
    with monitor.attach(model):
        model.become(float("nan"))
        with pytest.warns(RuntimeWarning, match="no look at the flow at step 1.*20 of 20 starts"):
            monitor.step()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            monitor.step()
            model.become(2.0)
            monitor.step()
        assert monitor.history.steps.tolist() == [0, 3]
        with pytest.raises(ValueError, match="has looked at step 3 already"):
            monitor.look()
        with pytest.raises(ValueError, match="steps never decrease"):
            monitor.step(1)
    for call in (monitor.step, monitor.look):
        with pytest.raises(RuntimeError, match="is not attached"):
            call()


def test_an_attach_whose_first_look_fails_leaves_nothing_open(tmp_path: Path) -> None:
    made = list[Flow]()

    def flow(model: nn.Module) -> Flow:
        if len(made) == 1:  # the first is a check
            raise ValueError("no flow today")
        made.append(Flow(model))
        return made[-1]

    monitor = FlowMonitor(flow, {"line": line()}, EventFolder(tmp_path), log_every=10)
    with pytest.raises(ValueError, match="no flow today"):
        monitor.attach(Gain(2.0))
    assert not monitor.attached
    other = FlowMonitor(Flow, {"line": line()}, EventFolder(tmp_path), log_every=10)
    with other.attach(Gain(2.0)):
        assert len(other.history.steps) == 1
    monitor.load_state_dict(other.state_dict())
    assert len(monitor.history.steps) == 1


def test_a_first_look_that_cannot_be_logged_is_taken_again() -> None:
    told = list[int]()

    def log(_: object, step: int) -> None:
        told.append(step)
        if len(told) == 1:
            raise OSError("no space left")

    monitor = FlowMonitor(Flow, {"line": line()}, log, log_every=10)
    with pytest.raises(OSError, match="no space left"):
        monitor.attach(Gain(2.0))
    monitor.attach(Gain(2.0)).close()
    assert told == [0, 0]


def test_a_log_is_opened_told_of_each_look_and_closed() -> None:
    class Log:
        def __init__(self) -> None:
            self.told: list[Any] = []

        def open(self, step: int) -> None:
            self.told.append(("open", step))

        def close(self) -> None:
            self.told.append("close")

        def __call__(self, look: tk.flows.FlowLook, step: int) -> None:
            assert look.step == step
            self.told.append(step)

    log = Log()
    monitor = FlowMonitor(Flow, {"line": line()}, log, log_every=10)
    with monitor.attach(Gain(2.0)):
        for step in (5, 12, 12, 40):
            monitor.step(step)
    with pytest.warns(RuntimeWarning, match="its curves begin here"):
        FlowMonitor(Flow, {"line": line()}, log).attach(Gain(2.0), 7).close()
    assert log.told == [("open", 0), 0, 12, 40, "close", ("open", 7), "close"]


class Writing(nn.Module):
    """Whose forward pass writes into its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.w.mul_(0.5)
        return 0.5 * x + self.w


BESIDE = nn.Sequential(nn.Linear(2, 2), nn.Dropout())


@pytest.mark.parametrize(
    ("model", "given", "kind", "message"),
    [
        (nn.Linear(2, 2), {"flow": lambda m: m}, TypeError, "gives a Linear; give one that ret"),
        (nn.Linear(2, 3), {}, ValueError, "to be applied again it must give"),
        (nn.Linear(2, 2), {"starts": {"a": NOISE.half()}}, TypeError, "float32 or float64"),
        (nn.Linear(2, 2), {"starts": {"a": NOISE[:0]}}, ValueError, "one state or more"),
        (nn.Linear(2, 2), {"starts": {"a": NOISE / 0}}, ValueError, "starts are not finite"),
        (nn.Linear(2, 2), {"flow": lambda m: Flow(BESIDE)}, ValueError, "training mode"),
        (nn.Linear(2, 2), {"starts": {"a": lambda m: BESIDE(NOISE)}}, ValueError, "training mode"),
        (
            nn.Linear(2, 2),
            {"flow": lambda m: Flow(lambda x: m(x) + torch.rand(1))},
            ValueError,
            "it draws random numbers",
        ),
        (Writing(), {}, RuntimeError, "writes into its parameter 'w'"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_at_the_start(
    model: nn.Module, given: dict[str, Any], kind: type[Exception], message: str
) -> None:
    modes = [each.training for each in model.modules()]
    numbers = torch.get_rng_state()
    monitor = FlowMonitor(**{"flow": Flow, "starts": {"a": NOISE}, **given})
    with pytest.raises(kind, match=message):
        monitor.attach(model)
    assert not monitor.attached
    assert [each.training for each in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), numbers)


def test_numbers_that_a_start_draws_are_the_same_at_every_look() -> None:
    def drawn(model: nn.Module) -> Tensor:
        numbers = torch.rand(200, 1) - 1.5 + random.random() + np.random.rand()  # noqa: NPY002
        return numbers.double()

    monitor = FlowMonitor(Flow, {"drawn": drawn}, log_every=1)
    with monitor.attach(Gain(2.0)):
        first = monitor.latest
        torch.rand(7), random.random(), np.random.rand()  # noqa: NPY002
        monitor.step()
    assert monitor.latest.step == 1
    assert torch.equal(monitor.latest.attractors, first.attractors)
    assert monitor.latest.basins.tolist() == first.basins.tolist()
    assert first.attractors.dtype == torch.float64


def test_a_model_whose_passes_wait_for_other_processes_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.DataParallel(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r"with a DataParallel \(1\), whose passes wait"):
        FlowMonitor(Flow, {"a": NOISE}).attach(model)
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(nn.Linear(2, 2))
        with pytest.raises(ValueError, match=r"with a DistributedDataParallel \(it\)"):
            FlowMonitor(Flow, {"a": NOISE}).attach(wrapped)
        assert FlowMonitor(Flow, {"a": NOISE}).attach(wrapped.module).latest.step == 0
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"flow": nn.Identity()}, TypeError, "needs a function from the model to its flow"),
        ({"starts": {}}, ValueError, "starts=\\[\\], of which"),
        ({"starts": {"a": 3}}, ValueError, "of which \\['a'\\] are neither"),
        ({"log_every": 0}, ValueError, "log_every=0; give a whole number"),
        ({"steps": True}, ValueError, "steps=True"),
        ({"search": "newton"}, TypeError, "got search=, which it does not take"),
    ],
)
def test_wrong_arguments_are_refused(
    given: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        FlowMonitor(**{"flow": Flow, "starts": {"a": NOISE}, **given})
