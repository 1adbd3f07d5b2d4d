"""The autoencoder and its stream: hooks, steps that are due, masks, memory, what is refused."""

import weakref
from typing import Any

import pytest
import torch
from torch import nn

import torchkoopman as tk
from tests.fitting.autoencoders import (
    polar,
    r2,
    small,
    stream,
)
from tests.systems import normal
from torchkoopman.observe.trajectory import Trajectory


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_fitter_learns_from_hooks_in_every_gradient_mode(mode: type) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh())
    fitter = small()
    with tk.attach(model, ["1", "3"]) as probe:
        probe.stream_to(fitter)
        for x in normal(500, 3).split(100):
            with mode(), probe.labels(torch.arange(100) % 2):
                model(x)
    assert fitter.steps == 5 * 4
    surrogate = fitter.surrogate
    assert not any(p.requires_grad for p in surrogate.parameters())
    assert surrogate.record.r2["3"] > 0
    assert all(p.grad is None for p in model.parameters())
    surrogate(torch.zeros(1, 1, 4))


def test_states_that_still_require_gradients_are_taken_as_values() -> None:
    layer = nn.Linear(2, 2)
    fitter = small()
    for x in normal(500, 2).split(100):
        fitter.update(Trajectory.of(x, layer(x)))
    fitter.train(3)
    assert layer.weight.grad is None


def test_a_step_inside_the_forward_pass_does_not_reach_the_watched_model() -> None:
    """The model's own backward pass works and gets its own gradients, fitter or not."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4))
    x = normal(300, 3)
    model(x).square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    with tk.attach(model, "*") as probe:
        probe.stream_to(small())
        model(x).square().sum().backward()
    for found, true in zip(model.parameters(), expected, strict=True):
        assert found.grad is not None
        torch.testing.assert_close(found.grad, true, rtol=0, atol=0)


def test_updates_go_on_after_training() -> None:
    fitter = stream(small(), polar(400)).train(10)
    done, rows = fitter.steps, fitter.surrogate.record.rows
    stream(fitter, polar(300, seed=3))
    assert fitter.steps == done + 3 * 4
    assert fitter.surrogate.record.rows == rows + 300
    fitter.train(5)
    assert fitter.steps == done + 12 + 5


def test_steps_owed_during_calibration_are_taken_when_it_ends() -> None:
    fitter = small(calibration=350)
    taken = [fitter.update(Trajectory.of(*polar(100, seed=k))).steps for k in range(5)]
    assert taken == [0, 0, 0, 16, 20]


def test_data_shorter_than_the_calibration_are_fitted_when_the_surrogate_is_asked_for() -> None:
    fitter = stream(small(calibration=100_000), polar(300))
    assert fitter.steps == 0
    surrogate = fitter.surrogate
    assert surrogate.record.rows == 300
    assert fitter.steps == 12
    assert r2(surrogate, polar(300, seed=4)) > 0


def test_train_before_the_calibration_is_complete_takes_the_steps_asked_for_besides() -> None:
    fitter = stream(small(calibration=100_000), polar(300)).train(7)
    assert fitter.steps == 12 + 7


def test_a_surrogate_asked_for_too_early_costs_no_rows() -> None:
    fitter = small().update(Trajectory.of(*polar(2)))
    with pytest.raises(ValueError, match="2 rows"):
        _ = fitter.surrogate
    assert stream(fitter, polar(300)).surrogate.record.rows == 302


def test_a_surrogate_before_any_data_is_refused_with_the_way_to_stream() -> None:
    with pytest.raises(ValueError, match=r"no data yet.*stream_to"):
        _ = small().surrogate
    with pytest.raises(ValueError, match="no data yet"):
        small().train(5)


def test_other_layers_than_the_first_ones_are_refused_with_both_lists() -> None:
    states = polar(50)
    fitter = small().update(Trajectory.of(*states))
    with pytest.raises(ValueError, match=r"\('0', '1', '2'\).*\('0', '1'\)"):
        fitter.update(Trajectory.of(*states[:2]))


def test_memory_is_bounded_and_the_count_of_rows_is_not() -> None:
    row = 3 * 2 * 4 + 16  # with the label and the number of its sample
    fitter = stream(small(replay_bytes=150 * row, steps_per_update=0), polar(2000))
    kept = fitter._intake.reservoir.parts()
    assert sum(tensor.numel() * tensor.element_size() for tensor in kept) == 150 * row
    assert not fitter._intake._calibration.held
    assert fitter.surrogate.record.rows == 2000


def test_statistics_are_those_of_the_final_latent_states_class_by_class() -> None:
    states = polar(600)
    fitter = stream(small(), states, labelled=True)
    surrogate = fitter.surrogate
    statistics = surrogate.statistics
    assert statistics is not None
    assert statistics.classes == (0, 1, 2)
    latent = surrogate.encode(states[0][:, None], "0")[:, 0].double()
    torch.testing.assert_close(
        statistics.total().mean("start"), latent.mean(0), rtol=1e-4, atol=1e-4
    )
    chosen = latent[(torch.arange(600) % 100) % 3 == 1]
    torch.testing.assert_close(
        statistics.by_class[1].mean("start"), chosen.mean(0), rtol=1e-4, atol=1e-4
    )
    end = surrogate.encode(states[-1][:, None], "2")[:, 0].double()
    torch.testing.assert_close(statistics.total().mean("end"), end.mean(0), rtol=1e-4, atol=1e-4)


def test_masked_rows_are_not_learnt_from() -> None:
    states = [state.view(60, 5, 2) for state in polar(300)]
    mask = (torch.arange(300).view(60, 5) % 3) > 0
    spoilt = {
        str(k): torch.where(mask[..., None], s, torch.full_like(s, 1e4))
        for k, s in enumerate(states)
    }
    fitter = small(calibration=100).update(Trajectory(spoilt, mask=mask))
    assert fitter.surrogate.record.rows == int(mask.sum())
    assert fitter._intake.reservoir[:][0].abs().max() < 100


def test_a_first_batch_with_no_counted_row_is_no_error() -> None:
    states = [state[:, None] for state in polar(50)]
    nothing = Trajectory(
        dict(zip("012", states, strict=True)), mask=torch.zeros(50, 1, dtype=torch.bool)
    )
    fitter = stream(small().update(nothing), polar(300))
    assert fitter.surrogate.record.rows == 300


@pytest.mark.parametrize(
    "fitter", [tk.DMDFitter(), tk.EDMDFitter(calibration=600), small(steps_per_update=0)]
)
def test_of_all_that_streams_only_the_latest_trajectory_is_kept(fitter: Any) -> None:
    seen = []
    for seed in range(12):
        trajectory = Trajectory.of(*polar(100, seed=seed))
        seen.append(weakref.ref(next(iter(trajectory.states.values()))))
        fitter.update(trajectory)
        del trajectory
    assert [ref() is None for ref in seen] == [True] * 11 + [False]
