"""Compiled calls: hooks cannot read in them, and they are never passed over in silence."""

import copy
import gc
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.observe.probes import attach
from torchkoopman.observe.trajectory import Trajectory

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
LAYERS = ["0", "2"]


@contextmanager
def said(*patterns: str) -> Iterator[None]:
    """Every pattern is in a warning, and every warning has one of them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    messages = [str(each.message) for each in caught]
    assert [p for p in patterns if not any(re.search(p, m) for m in messages)] == []
    assert [m for m in messages if not any(re.search(p, m) for p in patterns)] == []


BEING = "being compiled"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Written(nn.Module):
    """With a forward of its own, which is compiled without the call around it."""

    def __init__(self) -> None:
        super().__init__()
        for number in range(3):
            self.add_module(str(number), nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        for number in range(3):
            x = torch.tanh(self.get_submodule(str(number))(x))
        return x


def stacked() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))


MODELS = pytest.mark.parametrize("make", [stacked, Written])


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@MODELS
def test_calls_compiled_while_the_probe_is_on_are_said_counted_and_exact(
    make: Callable[[], nn.Module], backend: str
) -> None:
    model, got = make(), list[Trajectory]()
    expected = model(X)
    with said("passed nothing on.*compiled while"), attach(model, LAYERS) as probe:
        probe.stream_to(got.append)
        compiled = torch.compile(model, backend=backend, fullgraph=True)
        with pytest.warns(RuntimeWarning, match=r"is being compiled.*counted") as warned:
            compiled(X)
        assert len(warned) == 1
        assert torch.allclose(compiled(X), expected)
        for _ in range(10):
            compiled(X).sum().backward()
        report = probe.report()
    assert report.compiled_calls == 12
    assert set(report.compiled) >= {"0", "2"}
    assert "calls in compiled code, not read: 12" in str(report)
    assert got == []


@MODELS
def test_the_model_itself_streams_beside_its_compiled_version(
    make: Callable[[], nn.Module],
) -> None:
    model, got = make(), list[Trajectory]()
    compiled = torch.compile(model, backend="eager")
    with said(BEING), attach(model, LAYERS) as probe:
        probe.stream_to(got.append)
        for _ in range(3):
            model(X)
            compiled(X)
    assert len(got) == 3
    assert probe.report().compiled_calls == 3


def test_one_graph_holds_the_model_and_the_count() -> None:
    model, graphs = stacked(), list[torch.fx.GraphModule]()

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    with attach(model, LAYERS) as probe:
        compiled = torch.compile(model, backend=backend, fullgraph=True)
        with pytest.warns(RuntimeWarning, match="being compiled"):
            compiled(X)
        for _ in range(12):
            compiled(X)
        assert probe.report().compiled_calls == 13
    assert len(graphs) == 1


def test_a_version_compiled_before_is_said_at_attach_and_a_probe_that_saw_nothing_says_so() -> None:
    model = stacked()
    compiled = torch.compile(model, backend="eager")
    compiled(X)
    with (
        said(
            "passed nothing on.*before the probe was attached",
            r"compiled version of the model.*_dynamo\.reset\(\)",
        ),
        attach(model, LAYERS) as probe,
    ):
        probe.stream_to(lambda trajectory: None)
        compiled(X)
        assert probe.report().forwards == 0
    del compiled
    gc.collect()
    with attach(model, LAYERS) as probe:
        got: list[Trajectory] = []
        probe.stream_to(got.append)
        model(X)
    assert len(got) == 1


def test_after_a_reset_the_calls_of_a_version_compiled_before_are_counted() -> None:
    model = stacked()
    compiled = torch.compile(model, backend="eager")
    compiled(X)
    torch._dynamo.reset()
    with said(BEING), attach(model, LAYERS) as probe:
        for _ in range(4):
            compiled(X)
        assert probe.report().compiled_calls == 4


def test_another_models_compiled_version_is_nobodys_business() -> None:
    other = torch.compile(stacked(), backend="eager")
    other(X)
    model, got = stacked(), list[Trajectory]()
    with attach(model, LAYERS) as probe:
        probe.stream_to(got.append)
        model(X)
    assert len(got) == 1


@pytest.mark.parametrize("before", [True, False])
def test_a_function_that_calls_the_model_may_be_what_is_compiled(before: bool) -> None:
    model, got = Written(), list[Trajectory]()

    @torch.compile(backend="eager")
    def step(x: Tensor) -> Tensor:
        return model(x).sum()  # type: ignore[no-any-return]

    if before:
        step(X)
    causes = ("before the probe was attached",) if before else ("compiled while", BEING)
    with said(*causes), attach(model, LAYERS) as probe:
        probe.stream_to(got.append)
        for _ in range(3):
            step(X)
        assert probe.report().compiled_calls == (0 if before else 3)
    assert got == []


def test_a_layer_compiled_while_the_probe_is_on_takes_its_passes_out_and_says_so() -> None:
    model, got = Written(), list[Trajectory]()
    with said("'2' of a model"), attach(model, LAYERS) as probe:
        probe.stream_to(got.append)
        model(X)
        model.get_submodule("2").compile(backend="eager")
        model(X), model(X)
    report = probe.report()
    assert len(got) == 1
    assert report.compiled == ("2",)
    assert report.skipped == {"compiled": 2}


def test_a_compiled_forward_is_refused_at_attach() -> None:
    model = Written()
    model.forward = torch.compile(model.forward, backend="eager")  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="its forward is compiled"):
        attach(model, LAYERS)
    model._compiler_ctx = {"compiler": "dynamo"}  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"Lightning did so.*to_uncompiled"):
        attach(model, LAYERS)


def test_a_forward_that_is_never_compiled_is_read() -> None:
    """``torch.compiler.disable`` marks a function as ``torch.compile`` does, and runs it."""
    model, got = stacked(), list[Trajectory]()
    model.forward = torch.compiler.disable(model.forward)  # type: ignore[method-assign]
    with attach(model, LAYERS) as probe:
        probe.stream_to(got.append)
        model(X)
    assert len(got) == 1
    model.forward = torch.compile(model.forward, backend="eager")  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="its forward is compiled"):
        attach(model, LAYERS)


def test_a_copy_and_an_exported_program_count_nothing() -> None:
    model = stacked()
    with attach(model, LAYERS) as probe:
        torch.compile(copy.deepcopy(model), backend="eager")(X)
        program = torch.export.export(model, (X,), strict=True)
        assert not any("add_" in str(node.target) for node in program.graph.nodes)
        assert probe.report().compiled_calls == 0
        assert probe.report().compiled == ()


def test_a_fit_whose_forward_runs_something_else_says_the_cause() -> None:
    model, batches = stacked(), [torch.randn(50, 4) for _ in range(4)]
    compiled = torch.compile(model, backend="eager")
    compiled(batches[0])
    with (
        said("compiled version of the model", BEING),
        pytest.raises(ValueError, match=r"4 batches, but none passed anything on: 4 calls ran in"),
    ):
        tk.fit(
            model,
            batches,
            LAYERS,
            method="dmd",
            progress=False,
            forward=lambda model, batch: compiled(batch),
        )


@pytest.mark.parametrize(
    ("run", "cause"),
    [
        (lambda model: None, "no forward pass of the model was seen"),
        (lambda model: stacked()(X), "another object ran"),
        (lambda model: model.eval()(X), "never in the mode"),
        (lambda model: torch.func.vmap(model)(X), "traced or transformed"),
        (lambda model: model._forward_hooks.clear(), "removed the probe's hooks"),
    ],
)
def test_leaving_a_probe_that_passed_nothing_on_names_the_likely_cause(
    run: Callable[[nn.Module], object], cause: str
) -> None:
    model = stacked()
    with (
        said(f"passed nothing on to its listeners.*{cause}"),
        attach(model, LAYERS, when="train") as probe,
    ):
        probe.stream_to(lambda trajectory: None)
        run(model)


def test_a_probe_without_listeners_or_left_by_an_exception_is_left_in_silence() -> None:
    model = stacked()
    with attach(model, LAYERS):
        pass
    with pytest.raises(ZeroDivisionError), attach(model, LAYERS).stream_to(print):
        raise ZeroDivisionError
    probe = attach(model, LAYERS).stream_to(lambda trajectory: None)
    with pytest.warns(RuntimeWarning, match="passed nothing on"):
        probe.detach()
    probe.detach()
