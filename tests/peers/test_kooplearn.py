"""kooplearn's checks: test_ridge_estimator.py, and of its data sets test_linear_system_dataset.py.

The same checks of its kernel and Nyström estimators are stated once. A test of a linear data set is
the claim that the fit of that data set continues it so. Left out: solvers and sketches, observables
other than the state, custom metrics, data frames.
"""

import math

import pytest
import torch
from sklearn.metrics import r2_score
from torch import Tensor

import torchkoopman as tk
from tests.peers.checks import jacobian, moving, near, orbit, pairs, states, step
from tests.peers.systems import noisy_series, powers


def fits_and_predicts(rank: int, lag: int, surrogate: tk.Surrogate) -> None:
    """What test_Kernel_fit_predict_eig_modes_risk_svals asserts of every fit."""
    series = noisy_series()
    ahead = step(surrogate, series)
    assert ahead.shape == series.shape
    values = moving(surrogate)
    assert values.ndim == 1
    assert len(values) <= rank
    assert values.isfinite().all()
    near(step(surrogate, series), ahead, rtol=1e-10)


@states("kooplearn test_ridge_estimator.py test_Kernel_fit_…[n_components 5]")
def test_the_true_rank_is_fitted() -> None:
    fits_and_predicts(5, 1, tk.DMDFitter(5).update(pairs(noisy_series())).surrogate)


@states("kooplearn test_ridge_estimator.py test_Kernel_fit_…[n_components 3]")
def test_a_lower_rank_is_fitted() -> None:
    fits_and_predicts(3, 1, tk.DMDFitter(3).update(pairs(noisy_series())).surrogate)


@states("kooplearn test_ridge_estimator.py test_Kernel_fit_…[n_components 15]")
def test_a_higher_rank_is_fitted() -> None:
    fits_and_predicts(15, 1, tk.DMDFitter(15).update(pairs(noisy_series())).surrogate)


@states("kooplearn test_ridge_estimator.py test_Kernel_fit_…[lag_time 5]")
def test_a_longer_lag_is_fitted() -> None:
    fits_and_predicts(5, 5, tk.DMDFitter(5).update(pairs(noisy_series(), 5)).surrogate)


@states("kooplearn test_ridge_estimator.py test_Kernel_fit_…[alpha 0.0]")
def test_no_ridge_is_fitted() -> None:
    fits_and_predicts(5, 1, tk.DMDFitter(5, ridge=0.0).update(pairs(noisy_series())).surrogate)


@states("kooplearn test_ridge_estimator.py test_Kernel_fit_…[alpha 1e-6]")
def test_a_ridge_is_fitted() -> None:
    fits_and_predicts(5, 1, tk.DMDFitter(5, ridge=1e-6).update(pairs(noisy_series())).surrogate)


@states("kooplearn test_kernel_ridge_estimator.py test_Kernel_fit_…[rbf]")
def test_nonlinear_features_are_fitted() -> None:
    fitter = tk.EDMDFitter(tk.RandomFeatures(10), rank=5).update(pairs(noisy_series()))
    fits_and_predicts(15, 1, fitter.surrogate)


@states("kooplearn test_ridge_estimator.py test_invalid_input_shape_raises")
def test_one_row_is_refused() -> None:
    row = torch.randn(1, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.raises(ValueError, match=r"constant|rows"):
        _ = tk.DMDFitter().update(tk.Trajectory.of(row, row)).surrogate


@states("kooplearn test_ridge_estimator.py test_predict_observable_shape_mismatch_raises")
def test_a_target_of_other_rows_is_refused() -> None:
    x = torch.randn(22, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.raises(ValueError, match="disagree"):
        tk.DMDFitter().update(tk.Trajectory.of(x[:20], x))


@states("kooplearn test_kernel_ridge_estimator.py test_random_state_reproducibility")
def test_the_same_generator_gives_the_same_features() -> None:
    x = torch.randn(25, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, other = (
        tk.EDMDFitter(tk.RandomFeatures(3), generator=torch.Generator().manual_seed(42))
        .update(pairs(x))
        .surrogate
        for _ in range(2)
    )
    near(one.encode(x[:, None], "0"), other.encode(x[:, None], "0"), rtol=1e-10)
    near(one.operator.matrix(), other.operator.matrix(), rtol=1e-10)


@states("kooplearn test_ridge_estimator.py test_score_training_and_test_alignment")
def test_the_recorded_quality_is_that_of_the_predictions() -> None:
    series = noisy_series()
    surrogate = tk.DMDFitter(3, ridge=1e-3).update(pairs(series)).surrogate
    manual = r2_score(series[1:], step(surrogate, series[:-1]), multioutput="variance_weighted")
    assert math.isclose(surrogate.record.r2["1"], manual, rel_tol=1e-5, abs_tol=1e-8)


def continued(matrix: Tensor, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The orbit of a matrix, and what the fit of its pairs makes of its start."""
    known = powers(matrix, start, steps + 1)
    return known, orbit(tk.DMDFitter().update(pairs(known)).surrogate, start, steps + 1)


SPIRAL = torch.tensor([[0.9, 0.1], [-0.1, 0.9]], dtype=torch.float64)
EAST = torch.tensor([1.0, 0.0], dtype=torch.float64)


def rotation(angle: float) -> Tensor:
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)


@states("kooplearn test_linear_system_dataset.py test_make_linear_system_koopman_operator")
def test_every_step_of_a_spiral_is_its_matrix() -> None:
    known = powers(SPIRAL, EAST, 101)
    surrogate = tk.DMDFitter().update(pairs(known)).surrogate
    near(step(surrogate, known[:-1]), known[1:], rtol=1e-10)
    near(jacobian(surrogate, EAST), SPIRAL, rtol=1e-10)


@states("kooplearn test_linear_system_dataset.py test_make_linear_system_rotation_matrix")
def test_four_quarter_turns_lead_back() -> None:
    _, found = continued(rotation(math.pi / 2), EAST, 4)
    near(found[4], EAST, rtol=1e-7, atol=1e-10)


@states("kooplearn test_linear_system_dataset.py test_make_linear_system_norm_preservation")
def test_a_rotation_keeps_the_norm() -> None:
    _, found = continued(rotation(math.pi / 6), EAST, 100)
    near(found.norm(dim=1), torch.ones(101, dtype=torch.float64), rtol=1e-10)


@states("kooplearn test_linear_system_dataset.py test_make_linear_system_diagonal_matrix")
def test_coordinates_of_a_diagonal_matrix_decay_by_themselves() -> None:
    rates = torch.tensor([0.9, 0.8, 0.7], dtype=torch.float64)
    _, found = continued(rates.diag(), torch.ones(3, dtype=torch.float64), 10)
    near(found, rates ** torch.arange(11)[:, None], rtol=1e-10)


@states("kooplearn test_linear_system_dataset.py test_make_linear_system_stable_system")
def test_a_stable_system_decays() -> None:
    start = torch.tensor([10.0, 10.0], dtype=torch.float64)
    _, found = continued(0.5 * torch.eye(2, dtype=torch.float64), start, 100)
    assert found[-1].norm() < start.norm()
