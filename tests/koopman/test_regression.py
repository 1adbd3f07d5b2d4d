"""Ridge regression from moments against scipy and scikit-learn's formula on the rows themselves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from torch import Tensor

from tests.systems import draw, pair
from torchkoopman.koopman.regression import (
    best_ridge,
    koopman_matrix,
    pool,
    ridge_map,
    solve_ridge,
)
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs


def lifted(rows: Tensor) -> Tensor:
    return torch.cat([torch.ones(len(rows), 1).double(), rows], 1)


def ridge_on_rows(start: Tensor, end: Tensor, penalty: float) -> np.ndarray:
    """Least squares with the rows √penalty·I appended: a ridge without forming a Gram matrix."""
    d = start.shape[1]
    stacked = np.vstack([start.numpy(), np.sqrt(penalty) * np.eye(d)])
    targets = np.vstack([end.numpy(), np.zeros((d, end.shape[1]))])
    return linalg.lstsq(stacked, targets)[0].T


@settings(deadline=None, max_examples=30)
@given(st.floats(-8, 1), st.integers(1, 6), st.integers(1, 4), st.integers(0, 1000))
def test_a_ridge_map_is_the_ridge_regression_on_centred_rows(
    exponent: float, inputs: int, outputs: int, seed: int
) -> None:
    ridge = 10**exponent
    x = draw(60, inputs, seed=seed) + 3
    y = (x @ draw(inputs, outputs, seed=seed + 1)).sin() + 2
    weight, bias = ridge_map(pair(x, y), ridge)
    centred = x - x.mean(0)
    penalty = ridge * 60 * x.var(0, correction=0).mean().item()
    expected = ridge_on_rows(centred, y - y.mean(0), penalty)
    np.testing.assert_allclose(weight.numpy(), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(x.mean(0) @ weight.T + bias, y.mean(0))


@settings(deadline=None, max_examples=30)
@given(st.floats(-8, 1), st.integers(1, 6), st.integers(0, 1000))
def test_a_koopman_matrix_without_constant_is_the_ridge_regression_on_the_rows(
    exponent: float, size: int, seed: int
) -> None:
    ridge = 10**exponent
    x = draw(60, size, seed=seed) + 1
    y = (x @ draw(size, size, seed=seed + 1)).sin()
    K = koopman_matrix(pair(x, y), ridge, constant=False)
    expected = ridge_on_rows(x, y, ridge * x.square().sum(0).mean().item())
    np.testing.assert_allclose(K.numpy(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("ridge", [0.0, 1e-6, 0.1])
def test_a_koopman_matrix_with_constant_is_the_ridge_map_of_the_rest(ridge: float) -> None:
    x, y = draw(60, 4) + 3, draw(60, 4).sin() @ draw(4, 4)
    K = koopman_matrix(pair(lifted(x), lifted(y)), ridge, constant=True)
    assert K[0].tolist() == [1, 0, 0, 0, 0]
    penalty = ridge * 60 * x.var(0, correction=0).mean().item()
    expected = ridge_on_rows(x - x.mean(0), y - y.mean(0), penalty)
    np.testing.assert_allclose(K[1:, 1:].numpy(), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(K[1:, 0], y.mean(0) - K[1:, 1:] @ x.mean(0))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_affine_data_are_fitted_exactly(size: int, seed: int) -> None:
    x, weight, bias = draw(60, size, seed=seed), draw(size, size, seed=seed + 1), draw(size)
    y = x @ weight.T + bias
    found = ridge_map(pair(x, y), 0.0)
    torch.testing.assert_close(found, (weight, bias), rtol=0, atol=1e-9)
    K = koopman_matrix(pair(lifted(x), lifted(y)), 0.0, constant=True)
    expected = torch.cat([torch.eye(1, size + 1).double(), torch.cat([bias[:, None], weight], 1)])
    torch.testing.assert_close(K, expected, rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.floats(-4, 4), st.integers(1, 5))
def test_a_relative_ridge_means_the_same_at_any_scale_and_number_of_rows(
    exponent: float, repeats: int
) -> None:
    scale, x, y = 10**exponent, draw(60, 4), draw(60, 3, seed=1)
    weight, bias = ridge_map(pair(x, y), 0.1)
    scaled = ridge_map(pair((scale * x).repeat(repeats, 1), y.repeat(repeats, 1)), 0.1)
    torch.testing.assert_close(scaled[0] * scale, weight, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(scaled[1], bias, rtol=1e-9, atol=1e-12)


def test_a_larger_ridge_shrinks_the_map_towards_the_mean() -> None:
    x, y = draw(60, 4) + 3, draw(60, 3, seed=1)
    norms = [ridge_map(pair(x, y), 10.0**k)[0].norm().item() for k in range(-4, 9, 2)]
    assert norms == sorted(norms, reverse=True)
    assert norms[-1] < 1e-6
    torch.testing.assert_close(ridge_map(pair(x, y), 1e12)[1], y.mean(0), rtol=0, atol=1e-9)


def test_dependent_features_without_a_ridge_warn_and_get_the_shortest_solution() -> None:
    x = draw(60, 3)
    x = torch.cat([x, x[:, :1]], 1)
    y = x @ draw(4, 2)
    with pytest.warns(RuntimeWarning, match="4 observables are linearly dependent at ridge=0"):
        weight, _ = ridge_map(pair(x, y), 0.0)
    expected = np.linalg.pinv((x - x.mean(0)).numpy()) @ (y - y.mean(0)).numpy()
    np.testing.assert_allclose(weight.numpy(), expected.T, rtol=0, atol=1e-9)
    torch.testing.assert_close(weight[:, 0], weight[:, 3])


def test_a_small_ridge_on_dependent_features_is_near_the_shortest_solution() -> None:
    x = draw(60, 3)
    x = torch.cat([x, x[:, :1]], 1)
    y = x @ draw(4, 2)
    weight, _ = ridge_map(pair(x, y), 1e-8)
    expected = np.linalg.pinv((x - x.mean(0)).numpy()) @ (y - y.mean(0)).numpy()
    np.testing.assert_allclose(weight.numpy(), expected.T, rtol=0, atol=1e-6)


def test_solving_is_solving_the_regularised_system() -> None:
    rows, right = draw(20, 5), draw(5, 3)
    S = rows.T @ rows
    solution = solve_ridge(S, right, 0.3)
    torch.testing.assert_close(S @ solution + 0.3 * S.trace() / 5 * solution, right)


def test_a_negative_ridge_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ridge=-0\.1 must not be negative"):
        ridge_map(pair(draw(9, 2), draw(9, 2)), -0.1)


def test_pooled_pairs_are_the_pairs_one_after_the_other() -> None:
    x, y, z = draw(60, 3) + 1, draw(60, 3, seed=1), draw(60, 3, seed=2) - 4
    moments = Moments(layer_pairs(("x", "y", "z"), "all")).update({"x": x, "y": y, "z": z})
    pooled = pool(moments, [("x", "y"), ("y", "z")])
    direct = pair(torch.cat([x, y]), torch.cat([y, z]))
    assert pooled.count == 120
    for quantity in (("start", "start"), ("start", "end"), ("end", "end")):
        torch.testing.assert_close(pooled.cov(*quantity), direct.cov(*quantity))
    torch.testing.assert_close(moments.between("x", "y").cov("start", "end"), moments.cov("x", "y"))
    expected = ridge_map(direct, 1e-3)
    torch.testing.assert_close(ridge_map(pooled, 1e-3), expected)


def test_an_exact_map_of_directions_of_different_sizes_needs_no_ridge_in_float64() -> None:
    """A ridge of 1e-12 would be off by 1e-6 in the direction of a millionth of the variance."""
    x = draw(200, 2) * torch.tensor([1.0, 1e-3])
    A = draw(2, 2, seed=1)
    moments = pair(lifted(x), lifted(x @ A.T))
    ridge = best_ridge(moments, torch.float64)
    found = koopman_matrix(moments, ridge, constant=True)[1:, 1:]
    assert (found - A).abs().max() < 1e-8
    assert best_ridge(moments, torch.float32) >= 1e-9


def test_near_singular_moments_keep_a_ridge_in_float64() -> None:
    x = draw(200, 2) * torch.tensor([1.0, 1e-6])
    moments = pair(lifted(x), lifted(x @ draw(2, 2, seed=1).T))
    assert best_ridge(moments, torch.float64) >= 1e-12
