"""Alone: what a fit or an evaluation runs is read by its own probe, and it reads no other pass."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import torchkoopman as tk
from torchkoopman.observe.alone import evaluating
from torchkoopman.observe.probes import attach
from torchkoopman.observe.trajectory import Trajectory

DATA = list(torch.randn(12, 50, 4, generator=torch.Generator().manual_seed(0)))


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4))


def fit(model: nn.Module, number: int = 0) -> tk.Surrogate:
    return tk.fit(model, DATA, "*", method="dmd", progress=False)


def test_an_evaluation_does_not_stream_into_the_probe_that_is_on() -> None:
    """Its data are held out: they would have been in the next evaluation's fit."""
    model, fitter = network().eval(), tk.DMDFitter()
    with attach(model, "*") as probe, torch.no_grad():
        probe.stream_to(fitter)
        for x in DATA[:6]:
            model(x)
        tk.evaluate(fitter.surrogate, model, DATA[6:])
        fit(model)
        tk.rank_spans(model, DATA, "*", progress=False)
    report = probe.report()
    assert fitter.surrogate.record.rows == 300
    assert report.trajectories == 6
    assert set(report.skipped) == {"other"}


def test_a_fit_within_a_listener_is_that_outside() -> None:
    model, found, got = network().eval(), list[tk.Surrogate](), list[Trajectory]()
    expected = fit(model)
    with attach(model, "*") as probe:
        probe.stream_to(got.append, lambda trajectory: found.append(fit(model)))
        model(DATA[0])
    assert len(got) == 1
    assert torch.equal(found[0].operator.matrix(1.0), expected.operator.matrix(1.0))


def test_fits_of_one_model_in_threads_are_each_that_of_one() -> None:
    """Each was given the rows of both, and the model came back in evaluation mode."""
    model = network().train()
    expected = fit(network())
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda number: fit(model, number), range(3)))
    for each in found:
        assert each.record.rows == expected.record.rows == 540
        assert torch.equal(each.operator.matrix(1.0), expected.operator.matrix(1.0))
    assert all(module.training for module in model.modules())


def test_a_fit_does_not_read_what_another_thread_runs() -> None:
    model, stop = network().eval(), threading.Event()
    expected = fit(model)

    def run() -> None:
        while not stop.is_set():
            model(torch.full((50, 4), 1e3))

    other = threading.Thread(target=run)
    other.start()
    try:
        found = fit(model)
    finally:
        stop.set()
        other.join()
    assert found.record.rows == expected.record.rows
    assert torch.equal(found.operator.matrix(1.0), expected.operator.matrix(1.0))


def test_what_the_loader_runs_is_not_read_before_the_first_batch_either() -> None:
    """Its first batch comes when the hooks are on, and nothing was run for the fit yet."""
    model = network().eval()
    expected = fit(model)

    class Loader:
        def __iter__(self) -> Iterator[torch.Tensor]:
            for x in DATA:
                model(torch.full((50, 4), 1e3))
                yield x

    found = tk.fit(model, Loader(), "*", method="dmd", progress=False)
    assert found.record.rows == expected.record.rows
    assert torch.equal(found.operator.matrix(1.0), expected.operator.matrix(1.0))


def test_a_forward_in_a_thread_of_its_own_is_told_why_nothing_came() -> None:
    model = network()
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(ValueError, match=r"in another thread than tk\.fit"),
    ):
        tk.fit(
            model,
            DATA,
            "*",
            method="dmd",
            progress=False,
            forward=lambda model, batch: pool.submit(model, batch).result(),
        )


def test_modes_come_back_when_the_last_run_is_over() -> None:
    model = network()
    model[1].eval()
    first, second = evaluating(model), evaluating(model[0])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert model.training
    assert not model[0].training
    second.__exit__(None, None, None)
    assert [module.training for module in model] == [True, False, True]


def test_a_model_that_does_more_in_eval_and_train_is_told_of_both() -> None:
    class Sampling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.noise = nn.Linear(4, 4), nn.Linear(4, 4), 1.0

        def train(self, mode: bool = True) -> "Sampling":
            self.noise = float(mode)
            return super().train(mode)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x) + self.noise * torch.randn(4))  # type: ignore[no-any-return]

    model = Sampling()
    assert torch.equal(fit(model).operator.matrix(1.0), fit(model).operator.matrix(1.0))
    assert (model.training, model.noise) == (True, 1.0)
    model.eval().b.train()
    fit(model)
    assert [model.training, model.noise, model.a.training, model.b.training] == [
        False,
        0,
        False,
        True,
    ]


def test_a_listener_is_given_to_a_probe_once() -> None:
    fitter = tk.DMDFitter()
    probe = attach(network(), "*").stream_to(fitter)
    for again in (fitter, fitter.update):
        with pytest.raises(ValueError, match=r"stream_to\(\) got \w+ twice"):
            probe.stream_to(again)
    probe.detach(quiet=True)
