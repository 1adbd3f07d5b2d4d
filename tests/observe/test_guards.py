"""Guards: when the program is recorded, recomputed or in a mode, readings stay true or absent."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

from torchkoopman.observe.probe import Probe
from torchkoopman.observe.probes import attach
from torchkoopman.observe.trajectory import Trajectory

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)), nn.Linear(4, 4), nn.Tanh()
    )


LAYERS = ["0.0", "0.1", "1", "2"]


def jit_trace(model: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(model, X, check_trace=False)


def run_fake(model: nn.Module) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model(mode.from_tensor(X))


TRACERS: dict[str, Callable[[nn.Module], object]] = {
    "export": lambda model: torch.export.export(model, (X,)),
    "strict export": lambda model: torch.export.export(model, (X,), strict=True),
    "symbolic_trace": torch.fx.symbolic_trace,
    "make_fx": lambda model: make_fx(model)(X),
    "jit.trace": jit_trace,
    "fake": run_fake,
    "vmap": lambda model: torch.func.vmap(model)(X),
    "vmap over nothing": lambda model: torch.func.vmap(lambda _: model(X))(X),
    "grad": lambda model: torch.func.grad(lambda x: model(x).sum())(X),
    "compile": lambda model: torch.compile(model, backend="eager", fullgraph=True)(X),
}


@pytest.mark.parametrize("how", TRACERS)
@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_nothing_is_read_while_the_program_is_recorded_or_transformed(how: str) -> None:
    model, got = network(), list[Trajectory]()
    with attach(model, LAYERS) as probe:
        probe.stream_to(got.append)
        if how == "compile":
            with pytest.warns(RuntimeWarning, match="being compiled"):
                TRACERS[how](model)
        else:
            TRACERS[how](model)
        assert got == []
        assert set(probe.report().skipped) <= {"traced"}
        torch._dynamo.reset()
        model(X)
    assert len(got) == 1
    assert probe.report().unpaired == 0


def test_a_traced_program_does_not_contain_the_probe() -> None:
    model = network()
    plain = torch.export.export(model, (X,))
    with attach(model, LAYERS):
        probed = torch.export.export(model, (X,))
        traced = make_fx(model)(X)
    targets = [node.target for node in probed.graph.nodes]
    assert targets == [node.target for node in plain.graph.nodes]
    assert not any("clone" in str(node.target) for node in traced.graph.nodes)


def test_a_traced_pass_with_a_leaf_that_never_fires_is_no_error() -> None:
    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.inner(x))

    model = nn.Sequential(Body())
    with attach(model, [f"0.inner.{layer}" for layer in LAYERS]) as probe:
        torch.fx.symbolic_trace(model)
    assert probe.report().trajectories == 0


class Checkpointed(nn.Module):
    """Recomputes its first part, or all that is around the layers, in the backward pass."""

    def __init__(self, reentrant: bool, whole: bool) -> None:
        super().__init__()
        self.body = network()
        self.reentrant, self.whole = reentrant, whole

    def forward(self, x: Tensor) -> Tensor:
        if self.whole:
            return self.again(self.body, x)
        return self.body[2](self.body[1](self.again(self.body[0], x)))  # type: ignore[no-any-return]

    def again(self, part: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(part, x, use_reentrant=self.reentrant)  # type: ignore[no-any-return]


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_a_recomputed_layer_is_read_once(reentrant: bool, whole: bool) -> None:
    model, got = Checkpointed(reentrant, whole), list[Trajectory]()
    with attach(model, [f"body.{layer}" for layer in LAYERS]) as probe:
        probe.stream_to(got.append)
        for _ in range(2):
            model(X.clone().requires_grad_()).sum().backward()
    assert len(got) == 2
    assert torch.equal(got[0].states["body.1"], got[1].states["body.1"])
    report = probe.report()
    assert report.skipped["recompute"] >= 2
    assert set(report.skipped) == {"recompute"}
    assert (report.forwards, report.unpaired, report.interrupted) == (2, 0, 0)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_states_captured_without_gradients_can_train_an_encoder(
    mode: Callable[[], torch.inference_mode],
) -> None:
    model, encoder, steps = network(), nn.Linear(4, 2), list[Tensor]()

    def learn(trajectory: Trajectory) -> None:
        assert trajectory.labels is not None
        scores = encoder(trajectory.states["2"][:, 0])
        loss = nn.functional.cross_entropy(scores, trajectory.labels)
        loss.backward()
        assert encoder.weight.grad is not None
        steps.append(encoder.weight.grad)

    with attach(model, LAYERS) as probe, mode():
        probe.stream_to(learn)
        with probe.labels(torch.tensor([0, 1, 1])):
            model(X)
    assert len(steps) == 1
    assert steps[0].abs().sum() > 0


def test_autocast_reaches_neither_the_states_nor_the_listeners() -> None:
    model, seen = network(), list[tuple[torch.dtype, torch.dtype]]()

    def listen(trajectory: Trajectory) -> None:
        rows = trajectory.rows()["1"]
        seen.append((rows.dtype, (rows.T @ rows).dtype))

    with attach(model, LAYERS) as probe, torch.autocast("cpu", dtype=torch.bfloat16):
        probe.stream_to(listen)
        assert model(X).dtype == torch.bfloat16
    assert seen == [(torch.float32, torch.float32)]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_states_have_the_models_precision_but_at_least_single(
    dtype: torch.dtype, expected: torch.dtype
) -> None:
    model, got = nn.Sequential(nn.Identity()), list[Trajectory]()
    with attach(model, "0") as probe:
        probe.stream_to(got.append)
        model(X.to(dtype))
    assert got[0].states["0"].dtype == expected
    assert torch.equal(got[0].states["0"][:, 0], X.to(dtype).to(expected))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_hooks_never_wait_for_a_gpu() -> None:
    model, tokens = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).cuda(), torch.randn(2, 9, 4).cuda()
    mask = torch.ones(2, 9, dtype=torch.bool)
    with attach(model, "*", positions=5) as probe, probe.mask(mask.cuda()):
        torch.cuda.set_sync_debug_mode("error")
        try:
            model(tokens), model(tokens)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert probe.report().streams[0].rows == 20


def test_a_probe_that_is_not_kept_takes_its_hooks_along() -> None:
    model = network()

    def forget() -> Probe:
        return attach(model, LAYERS)

    forget()
    assert all(not module._forward_hooks for module in model.modules())
