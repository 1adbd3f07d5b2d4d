"""Models that change while a probe is on: what is no longer the layer attached to is said."""

import copy
import pickle
import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from tests.observe.test_probes import hooks_on
from torchkoopman.observe.hooks import read_last
from torchkoopman.observe.probes import attach
from torchkoopman.observe.trajectory import Trajectory

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


class Adapted(nn.Module):
    """A layer with something beside it, as adapters put it there."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x  # type: ignore[no-any-return]


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: Adapted(model[0]), "a Adapted stands.*'0'.*Linear within it returns is str"),
        (lambda model: nn.Linear(4, 4), "a Linear stands.*'0'.*no longer called"),
        (lambda model: nn.Sequential(model[0], nn.ReLU()), "a Sequential stands.*'0'.*within it"),
    ],
    ids=["wrapped", "replaced", "extended"],
)
def test_a_layer_put_in_the_place_of_another_is_warned_of_once(
    change: Callable[[nn.Sequential], nn.Module], said: str
) -> None:
    model, got = network(), list[Trajectory]()
    with attach(model, "*") as probe:
        probe.stream_to(got.append)
        model(X)
        model[0] = change(model)
        with pytest.warns(RuntimeWarning, match=said) as warned:
            model(X), model(X)
    report = probe.report()
    assert len(warned) == 1
    assert report.replaced == ("0",)
    assert "replaced since attach(): '0'" in str(report)
    assert report.forwards == 3 == report.trajectories + report.unpaired
    assert len(got) == report.trajectories


def test_a_layer_that_is_gone_is_warned_of() -> None:
    model = network()
    with attach(model, ["0", "2"]):
        model(X)
        del model[2]
        with pytest.warns(RuntimeWarning, match="nothing stands in the place of layer '2'"):
            model(X)


def test_wrappers_of_torch_and_new_containers_are_no_other_layers() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network()

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)  # type: ignore[no-any-return]

    model, got = Holder(), list[Trajectory]()
    with attach(model, "body.*") as probe:
        probe.stream_to(got.append)
        model.body[0] = checkpoint_wrapper(model.body[0])  # type: ignore[no-untyped-call]
        model(X)
    assert len(got) == 1
    assert probe.report().replaced == ()
    model = Holder()
    probe = attach(model, "body.*").stream_to(got.append)
    model.body = nn.Sequential(*model.body)
    model(X)
    with pytest.warns(RuntimeWarning, match="hooks from 'body'"):
        probe.detach()
    assert len(got) == 2
    assert probe.report().replaced == ()
    assert hooks_on(model) == 0


def test_loaded_and_cast_weights_are_those_of_the_same_layers() -> None:
    model, got = network(), list[Trajectory]()
    zeros = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    with attach(model, "*") as probe:
        probe.stream_to(got.append)
        model.load_state_dict(zeros, assign=True)
        model(X)
        model.double()(X.double())
    assert [each.dtype for each in got] == [torch.float32, torch.float64]
    assert all(not each.states["2"].any() for each in got)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated.*:DeprecationWarning")
def test_what_torch_jit_made_is_refused_and_a_watched_model_is_not_scripted() -> None:
    model = network()
    scripted, traced = torch.jit.script(model), torch.jit.trace(model, X)
    for made in (scripted, traced, nn.Sequential(scripted, nn.Tanh())):
        with pytest.raises(ValueError, match=r"cannot watch.*of torch\.jit, which calls no hooks"):
            attach(made, "**")
    with attach(model, "*") as probe:
        with pytest.raises(
            AttributeError, match=r"torch\.jit\.script compiles a model's hooks too"
        ):
            torch.jit.script(model)
        probe.stream_to(lambda trajectory: None)
        model(X)
    torch.jit.script(model)


def test_a_probe_is_not_copied() -> None:
    probe = attach(network(), "*")
    for copying in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="a probe is of one model in one process"):
            copying(probe)


def test_a_model_nobody_changed_is_watched_in_silence() -> None:
    model = network()
    with warnings.catch_warnings(), attach(model, "*") as probe:
        warnings.simplefilter("error")
        probe.stream_to(lambda trajectory: None)
        model(X), model(X)
    assert probe.report().replaced == probe.report().lost_hooks == ()


def test_a_probe_may_be_detached_by_a_hook_ahead_of_its_own() -> None:
    """As another thread may: torch then calls the hooks it has listed, without keywords."""
    model, got = network(), list[Trajectory]()
    model.register_forward_pre_hook(lambda module, args: probe.detach(quiet=True))
    probe = attach(model, "*").stream_to(got.append)
    assert torch.equal(model(X), model(X))
    assert got == []
    assert (probe.report().forwards, hooks_on(model)) == (0, 1)


@pytest.mark.parametrize("change", ["added and removed", "taken off"])
def test_hooks_may_change_at_any_line_that_puts_a_layers_reading_last(change: str) -> None:
    """As other threads do, that attach to the model or detach."""
    model, got = network(), list[Trajectory]()
    model[0].register_forward_hook(lambda module, args, y: None)
    changed = []

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code is not read_last.__code__:
            return None
        if event == "line":
            changed.append(frame.f_lineno)
            if change == "taken off" and "key" in frame.f_locals:
                probe.pause()
            model[0].register_forward_hook(lambda module, args, y: None).remove()
        return trace

    probe = attach(model, "*").stream_to(got.append)
    model[0].register_forward_hook(lambda module, args, y: None)
    before = sys.gettrace()
    with attach(model, "*"):
        sys.settrace(trace)
        try:
            model(X)
        finally:
            sys.settrace(before)
    probe.detach(quiet=True)
    assert len(set(changed)) > 4
    assert len(got) == (change != "taken off")


@pytest.mark.parametrize("root", [False, True], ids=["inner layer", "the model too"])
@pytest.mark.parametrize("in_place", [False, True], ids=["anew", "in place"])
def test_what_a_hook_added_later_makes_of_an_output_is_what_is_read(
    root: bool, in_place: bool
) -> None:
    model, got, other = network(), list[Trajectory](), list[Trajectory]()
    with attach(model, ["0", "" if root else "2"]) as probe, attach(model, "*") as second:
        probe.stream_to(got.append)
        second.stream_to(other.append)
        model(X)
        for module in (model[0], model[2], model):
            module.register_forward_hook(
                lambda module, args, y: y.mul_(2) if in_place else 2 * y  # type: ignore[arg-type]
            )
        third = attach(model, "*").stream_to(lambda trajectory: None)  # its hooks are behind it
        with third, torch.no_grad():
            plain = model[0].forward(X)
            result = model(X)
    last = got[1].states["" if root else "2"][:, 0]
    assert torch.equal(got[1].states["0"][:, 0], 2 * plain)
    assert torch.equal(last, result if root else result / 2)
    assert torch.equal(other[1].states["2"][:, 0], result / 2)
    assert probe.report().interrupted == 0
    assert len(got) == len(other) == 2
    assert hooks_on(model) == 3  # those of this test
