"""deeptime's checks of linear fits: test_dmd.py, test_vamp.py and test_tica.py.

A projection onto ``dim`` directions, ``var_cutoff`` of their variance, is the argument ``rank``
here. Left out: scores and singular functions of VAMP, weights of TICA, kinetic maps, which have no
counterpart. deeptime draws its data unseeded; here the generator has a seed.
"""

import pytest
import torch

import torchkoopman as tk
from tests.peers.checks import (
    jacobian,
    moving,
    near,
    near_decimals,
    on_purpose,
    pairs,
    states,
    step,
)
from tests.peers.systems import CHAIN, ellipsoids, fading, jumps, orthogonal_orbit

AFFINE = (
    "fits are affine: what is constant along the orbit is the mean and no mode, and an orthogonal "
    "matrix of odd size has an eigenvalue of ±1"
)


@states("deeptime test_dmd.py test_mode")
def test_dynamics_that_do_not_exist_are_refused() -> None:
    for dynamics in ("step", "span"):
        assert tk.DMDFitter(dynamics=dynamics).dynamics == dynamics
    with pytest.raises(ValueError, match=r"\.\.\.\.\."):
        tk.DMDFitter(dynamics=".....")  # type: ignore[arg-type]


@states("deeptime test_dmd.py test_rank_cutoff[13, 15, 24]")
@pytest.mark.parametrize("rank", [13, 15, 24])
def test_as_many_modes_as_the_rank(rank: int) -> None:
    _, x = orthogonal_orbit()
    surrogate = tk.DMDFitter(rank).update(pairs(x)).surrogate
    assert len(moving(surrogate)) == rank
    assert surrogate.frames()[0].weight.shape == (rank, 25)


@on_purpose("deeptime test_dmd.py test_rank_cutoff[None]", AFFINE)
def test_as_many_modes_as_features_without_a_rank() -> None:
    A, x = orthogonal_orbit()
    assert len(moving(tk.DMDFitter().update(pairs(x)).surrogate)) == len(A)


@on_purpose("deeptime test_dmd.py test_decomposition", AFFINE)
def test_modes_and_eigenvalues_make_the_matrix() -> None:
    A, x = orthogonal_orbit()
    near_decimals(jacobian(tk.DMDFitter().update(pairs(x)).surrogate, x[0]), A)


@states("deeptime test_dmd.py test_propagate")
def test_an_orthogonal_orbit_is_propagated() -> None:
    _, x = orthogonal_orbit()
    near_decimals(step(tk.DMDFitter().update(pairs(x)).surrogate, x[:50]), x[1:51])


@states("deeptime test_vamp.py test_propagate")
def test_a_diagonal_map_is_propagated() -> None:
    data = torch.randn(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    K = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64).diag()
    surrogate = tk.DMDFitter().update(tk.Trajectory.of(data, data @ K)).surrogate
    near_decimals(step(surrogate, data), data @ K)


@states("deeptime test_vamp.py test_dim[1 … 7]")
@pytest.mark.parametrize("rank", range(1, 8))
def test_states_are_projected_on_as_many_directions_as_asked_for(rank: int) -> None:
    x = fading()
    surrogate = tk.DMDFitter(rank).update(pairs(x)).surrogate
    assert surrogate.encode(x[:, None], "0").shape == (len(x), 1, 1 + rank)


@states("deeptime test_vamp.py test_var_cutoff")
def test_all_the_variance_is_one_direction_less_than_there_are_since_one_is_constant() -> None:
    x = fading()
    assert len(moving(tk.DMDFitter(-1).update(pairs(x)).surrogate)) == x.shape[1] - 1
    assert len(moving(tk.DMDFitter(0.5).update(pairs(x)).surrogate)) < x.shape[1]
    with pytest.raises(ValueError, match="share of the variance"):
        tk.DMDFitter(1.1)


@states("deeptime test_vamp.py test_dim_and_var_cutoff[partial_fit]")
def test_chunks_of_fifteen_give_the_operator_of_the_whole_series() -> None:
    x = fading()
    fitter = tk.DMDFitter(3)
    for chunk in pairs(x).states["0"].split(15):
        start = int((x == chunk[0, 0]).all(1).nonzero()[0])
        fitter.update(pairs(x[start : start + len(chunk) + 1]))
    whole = tk.DMDFitter(3).update(pairs(x)).surrogate
    near_decimals(jacobian(fitter.surrogate, x[0]), jacobian(whole, x[0]), 4)


@states("deeptime test_vamp.py TestVAMPModel.test_K_is_T")
def test_the_step_of_a_markov_chain_is_its_transition_matrix() -> None:
    runs = jumps()
    fitter = tk.DMDFitter()
    for run in runs:
        fitter.update(pairs(run))
    counted = (runs[:, :-1].mT @ runs[:, 1:]).sum(0)
    transition = counted / counted.sum(1, keepdim=True)
    near(step(fitter.surrogate, torch.eye(3, dtype=torch.float64)), transition, atol=1e-5)
    assert (transition - torch.from_numpy(CHAIN)).abs().max() < 0.01


@states("deeptime test_vamp.py test_cktest")
def test_powers_of_the_operator_predict_the_operators_of_longer_lags() -> None:
    x = ellipsoids(10_000)
    fits = [tk.DMDFitter().update(pairs(x, lag)).surrogate for lag in range(1, 5)]
    estimates = torch.stack([moving(fit)[0] for fit in fits])
    near_decimals(estimates[0] ** torch.arange(1, 5), estimates, 1)


@states("deeptime test_tica.py test_constant_features")
def test_constant_features_are_refused_until_they_vary() -> None:
    fitter = tk.DMDFitter().update(tk.Trajectory.of(*torch.zeros(2, 90, 10, dtype=torch.float64)))
    with pytest.raises(ValueError, match="constant"):
        _ = fitter.surrogate
    fitter.update(tk.Trajectory.of(*torch.ones(2, 90, 10, dtype=torch.float64)))
    near_decimals(step(fitter.surrogate, torch.zeros(1, 10).double()), torch.zeros(1, 10))


@states("deeptime test_tica.py test_dim_parameter")
def test_ranks_that_mean_nothing_are_refused() -> None:
    assert tk.DMDFitter(3).rank == 3
    assert tk.DMDFitter(0.5).rank == 0.5
    for rank in (-2, 5.5, -0.1):
        with pytest.raises(ValueError, match="rank"):
            tk.DMDFitter(rank)


@states("deeptime test_tica.py test_update_projection_dimension")
def test_a_share_of_the_variance_or_a_number_bounds_the_projection() -> None:
    x = torch.randn(1000, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert len(moving(tk.DMDFitter(0.1).update(pairs(x)).surrogate)) <= 10
    assert len(moving(tk.DMDFitter(5).update(pairs(x)).surrogate)) <= 5
    assert len(moving(tk.DMDFitter(1).update(pairs(x)).surrogate)) == 1


@states("deeptime test_tica.py test_fit_reset")
def test_two_ways_through_the_same_series_give_the_same_moments() -> None:
    x = torch.randn(23_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    trajectory = pairs(x, 100)
    whole = tk.DMDFitter(1).update(trajectory).surrogate
    parts = tk.DMDFitter(1)
    for rows in torch.arange(trajectory.batch).split(1000):
        parts.update(trajectory.select(rows))
    assert parts.surrogate is not whole
    for mine, other in zip(parts.surrogate.frames(), whole.frames(), strict=True):
        near_decimals(mine.mean, other.mean)
    assert parts.surrogate.statistics is not None
    assert whole.statistics is not None
    mine, other = parts.surrogate.statistics.total(), whole.statistics.total()
    for pair in (("start", "start"), ("start", "end")):
        near_decimals(mine.cov(*pair), other.cov(*pair))
