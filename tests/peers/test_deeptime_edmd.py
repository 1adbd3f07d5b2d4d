"""deeptime's checks of dictionaries: test_edmd.py, test_kedmd.py and, of its basis,
test_monomials.py.

Left out: names of features. Kernels stand as random features, as many as deeptime keeps.
"""

from math import comb

import pytest
import torch

import torchkoopman as tk
from tests.peers.checks import jacobian, moving, near_decimals, on_purpose, pairs, states, step
from tests.peers.systems import ellipsoids, symmetric_map
from torchkoopman.koopman.observables import Dictionary


@states("deeptime test_edmd.py test_linearly_evolved_data[arrays], forward")
def test_linearly_evolved_data_are_carried_on_once_and_twice() -> None:
    data, K = symmetric_map()
    surrogate = tk.EDMDFitter(()).update(tk.Trajectory.of(data, data @ K)).surrogate
    near_decimals(step(surrogate, data), data @ K, 7)
    near_decimals(step(surrogate, data @ K), data @ K @ K, 7)


@states("deeptime test_edmd.py test_linearly_evolved_data[arrays], operator")
def test_the_operator_of_linearly_evolved_data_is_their_matrix() -> None:
    data, K = symmetric_map()
    surrogate = tk.EDMDFitter(()).update(tk.Trajectory.of(data, data @ K)).surrogate
    near_decimals(jacobian(surrogate, data[0]), K.T)


@states("deeptime test_edmd.py test_linearly_evolved_data[data set]")
def test_linearly_evolved_data_that_come_in_batches_are_carried_on() -> None:
    data, K = symmetric_map()
    fitter = tk.EDMDFitter(())
    for part in data.split(64):
        fitter.update(tk.Trajectory.of(part, part @ K))
    near_decimals(step(fitter.surrogate, data), data @ K, 7)
    near_decimals(jacobian(fitter.surrogate, data[0]), K.T)


@on_purpose(
    "deeptime test_edmd.py test_polynomially_evolved_data",
    "50 rows determine no 252 functions: a fit that only interpolates is refused",
    raises=ValueError,
    match="needs more rows",
)
def test_polynomially_evolved_data_are_carried_on() -> None:
    generator = torch.Generator().manual_seed(0)
    data = torch.rand(50, 5, generator=generator, dtype=torch.float64)
    ahead = 5 * data + 3 + data**2
    surrogate = tk.EDMDFitter(tk.Monomials(5)).update(tk.Trajectory.of(data, ahead)).surrogate
    near_decimals(step(surrogate, data), ahead, 4)


@states("deeptime test_kedmd.py test_sanity")
def test_ellipsoids_have_two_eigenvalues_that_are_not_zero() -> None:
    x = ellipsoids(500)
    surrogate = tk.EDMDFitter(tk.RandomFeatures(4)).update(pairs(x)).surrogate
    assert surrogate.encode(x[:-1, None], "0")[:, 0, -4:].shape == (499, 4)
    assert (moving(surrogate).abs()[:2] > 0).all()


@states("deeptime test_monomials.py test_eval, shape")
@pytest.mark.parametrize("features", [5, 6])
@pytest.mark.parametrize("degree", [2, 4, 5])
def test_there_are_as_many_monomials_as_combinations(degree: int, features: int) -> None:
    points = torch.randn(4, 1, features, generator=torch.Generator().manual_seed(0))
    values = Dictionary([tk.Monomials(degree)]).build(features).encode(points)
    assert values.shape == (4, 1, comb(degree + features, features))


@states("deeptime test_monomials.py test_eval, values")
@pytest.mark.parametrize("features", [5, 6])
@pytest.mark.parametrize("degree", [2, 4, 5])
def test_every_product_of_two_powers_is_among_the_monomials(degree: int, features: int) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(3, 1, features, generator=generator, dtype=torch.float64)
    values = Dictionary([tk.Monomials(degree)]).build(features).double().encode(points)
    for point, row in zip(points[:, 0], values[:, 0], strict=True):
        for i in range(degree + 1):
            for j in range(degree + 1 - i):
                product = point[:, None] ** i * point[None, :] ** j
                gap = (row - product.flatten()[:, None]).abs().amin(1)
                near_decimals(gap, torch.zeros_like(gap), 7)


@states("deeptime test_monomials.py test_eval, mismatch")
def test_states_of_another_width_are_refused() -> None:
    dictionary = Dictionary([tk.Monomials(2)]).build(5)
    with pytest.raises((ValueError, RuntimeError)):
        dictionary.encode(torch.zeros(3, 1, 6))
