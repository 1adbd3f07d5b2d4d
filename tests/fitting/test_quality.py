"""R² and what it leaves, streamed, against its definition on all rows at once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import torchkoopman as tk
from tests.systems import draw
from torchkoopman.fitting.quality import Unexplained, explained, predictions
from torchkoopman.observe.trajectory import Trajectory


def definition(prediction: Tensor, truth: Tensor) -> float:
    error = sum((p - t) @ (p - t) for p, t in zip(prediction, truth, strict=True))
    mean = sum(truth) / len(truth)
    spread = sum((t - mean) @ (t - mean) for t in truth)
    return float(error / spread)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 50))
def test_what_is_left_unexplained_equals_its_definition_on_all_rows_and_r2_is_the_rest(
    sizes: list[int], seed: int
) -> None:
    sizes = [*sizes, 2]
    truth = draw(sum(sizes), 3, seed=seed) + 10
    prediction = truth + 0.3 * draw(sum(sizes), 3, seed=seed + 99)
    score = Unexplained()
    for p, t in zip(prediction.split(sizes), truth.split(sizes), strict=True):
        score.update(p, t)
    assert score.rows == sum(sizes)
    assert score.value == pytest.approx(definition(prediction, truth), rel=1e-10)
    assert score.r2 == pytest.approx(1 - definition(prediction, truth), rel=1e-10)


def test_r2_of_the_truth_is_one_and_of_the_mean_zero() -> None:
    truth = draw(50, 4)
    assert Unexplained().update(truth, truth).r2 == 1.0
    mean = truth.mean(0).expand_as(truth)
    assert Unexplained().update(mean, truth).r2 == pytest.approx(0, abs=1e-12)


def test_r2_of_batches_whose_means_drift_counts_the_drift_as_variance() -> None:
    """Each batch alone is constant, so only the merged mean knows that the truth varies."""
    score = Unexplained()
    for level in (0.0, 4.0):
        score.update(torch.full((2, 1), level + 1), torch.full((2, 1), level))
    assert score.r2 == pytest.approx(1 - 4 * 1.0 / (4 * 2.0**2))


def test_r2_where_the_truth_does_not_vary_is_one_or_minus_infinity() -> None:
    constant = torch.ones(5, 2)
    assert Unexplained().update(constant, constant).r2 == 1.0
    assert Unexplained().update(constant + 1, constant).r2 == -float("inf")


def test_r2_is_summed_in_float64() -> None:
    truth = (1e4 + draw(1000, 2)).float()
    score = Unexplained()
    for part in truth.split(10):
        score.update(part + 1, part)
    expected = 1 - definition(truth.double() + 1, truth.double())
    assert score.r2 == pytest.approx(expected, rel=1e-6)


def test_predictions_leave_out_layers_between_the_steps_of_the_operator() -> None:
    states = [draw(60, 3, seed=k) for k in range(3)]
    trajectory = Trajectory.of(*states)
    span = tk.DMDFitter(dynamics="span").update(trajectory).surrogate
    step = tk.DMDFitter(dynamics="step").update(trajectory).surrogate
    assert set(predictions(span, trajectory)) == {"2"}
    assert set(predictions(step, trajectory)) == {"1", "2"}


def test_explained_is_the_definition_on_counted_rows_of_every_layer() -> None:
    states = [draw(30, 4, 3, seed=k) for k in range(3)]
    mask = torch.arange(4) < 2 + torch.arange(30)[:, None] % 3
    trajectory = Trajectory(dict(zip("abc", states, strict=True)), mask=mask)
    surrogate = tk.DMDFitter().update(trajectory).surrogate
    scores = explained(surrogate, trajectory)
    assert list(scores) == ["b", "c"]
    for layer, state in zip("bc", states[1:], strict=True):
        ahead = surrogate.predict(states[0].float(), "a", layer).double()
        assert scores[layer] == pytest.approx(1 - definition(ahead[mask], state[mask]), rel=1e-5)


def test_predictions_carry_no_gradients() -> None:
    trajectory = Trajectory.of(draw(20, 3), draw(20, 3, seed=1))
    surrogate = tk.DMDFitter().update(trajectory).surrogate.requires_grad_(True)
    assert not any(rows.requires_grad for rows in predictions(surrogate, trajectory).values())
