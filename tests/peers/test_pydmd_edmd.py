"""PyDMD's checks of nonlinear dictionaries: test_edmd.py and test_lando.py.

Both use polynomial kernels, here the dictionary of those polynomials. Left out: what a kernel has
and a dictionary has not (names and parameters of kernels, rank of the kernel matrix, no operator
matrix, dictionaries made of samples), and orbits that LANDO integrates with an ODE solver.
"""

import functools

import pytest
import torch
from torch import Tensor

import torchkoopman as tk
from tests.peers.checks import (
    jacobian,
    layer_modes,
    near,
    orbit,
    pairs,
    relative_error,
    states,
    step,
)
from tests.peers.systems import LORENZ_JACOBIAN, LORENZ_POINT, lorenz, toy


def toy_fit() -> tuple[tk.Surrogate, Tensor, Tensor]:
    """Williams' toy in monomials of degree 4, the first of its states, and J."""
    x, y, J = toy()
    fitter = tk.EDMDFitter(tk.Monomials(4)).update(tk.Trajectory.of(x, y))
    return fitter.surrogate, x[0], J


@states("PyDMD test_edmd.py test_eigs")
def test_eigenvalues_of_the_toy_are_products() -> None:
    surrogate, _, _ = toy_fit()
    powers = [(1, 0), (2, 0), (0, 1), (3, 0), (1, 1), (4, 0), (2, 1), (0, 2)]
    true = torch.tensor([0.9**i * 0.8**j for i, j in powers])
    near(surrogate.spectrum().eigenvalues[1:9], true.to(torch.complex128))


@states("PyDMD test_edmd.py test_eigenfunctions")
def test_eigenfunctions_of_the_toy_are_products() -> None:
    surrogate, _, _ = toy_fit()
    places = torch.linspace(-5, 5, 11, dtype=torch.float64)
    y, x = torch.meshgrid(places.flip(0), places, indexing="ij")
    grid = torch.stack([x, y], -1).reshape(-1, 1, 2)
    latent = surrogate.encode(grid, "0")[:, 0].to(torch.complex128)
    found = (latent @ surrogate.spectrum().functionals.conj()).real.T[1:9].reshape(-1, 11, 11)
    powers = [(1, 0), (2, 0), (0, 1), (3, 0), (1, 1), (4, 0), (2, 1), (0, 2)]
    for function, (i, j) in zip(found, powers, strict=True):
        true = ((x - y) / 2**0.5) ** i * y**j
        true = true / true.abs().sum(1).max()
        scaled = function / function.abs().sum(1).max() * (function[0, 0] * true[0, 0]).sign()
        assert relative_error(scaled, true) < 1e-6


@states("PyDMD test_edmd.py test_operator")
def test_modes_and_eigenvalues_of_the_toy_make_its_matrix() -> None:
    surrogate, _, J = toy_fit()
    modes, values = layer_modes(surrogate), surrogate.spectrum().eigenvalues
    near(modes @ values.diag() @ torch.linalg.pinv(modes), J, atol=1e-13)


@states("PyDMD test_edmd.py test_reconstruction")
def test_the_toys_orbit_is_reconstructed() -> None:
    surrogate, start, J = toy_fit()
    true = [start]
    for _ in range(499):
        true.append(J @ true[-1])
    near(orbit(surrogate, start, 500), torch.stack(true), atol=1e-13)


@states("PyDMD test_edmd.py test_kernel_errors")
@pytest.mark.parametrize("observables", ["rbf!", 3, ["three"], tk.Monomials])
def test_a_dictionary_that_does_not_exist_is_refused(observables: object) -> None:
    with pytest.raises(TypeError, match="observables are made of"):
        tk.EDMDFitter(observables)  # type: ignore[arg-type]


@states("PyDMD test_edmd.py test_eigenfunction_error")
def test_eigenfunctions_need_a_fit_and_states_of_its_width() -> None:
    x, y, _ = toy()
    fitter = tk.EDMDFitter(tk.Monomials(4))
    with pytest.raises(ValueError, match="no data"):
        _ = fitter.surrogate
    surrogate = fitter.update(tk.Trajectory.of(x, y)).surrogate
    with pytest.raises((ValueError, RuntimeError)):
        surrogate.encode(x[:, None, :1].expand(-1, 1, 3), "0")


@functools.cache
def lorenz_fit() -> tuple[tk.Surrogate, Tensor, Tensor]:
    """The Lorenz system's derivative in monomials of degree 3, states and derivatives."""
    x, velocity = lorenz()
    fitter = tk.EDMDFitter(tk.Monomials(3)).update(tk.Trajectory.of(x, velocity))
    return fitter.surrogate, x, velocity


@states("PyDMD test_lando.py test_f")
def test_the_lorenz_systems_velocity_is_found() -> None:
    surrogate, x, velocity = lorenz_fit()
    assert relative_error(step(surrogate, x), velocity) < 1e-5


@states("PyDMD test_lando.py test_bias")
def test_the_velocity_vanishes_at_the_fixed_point() -> None:
    surrogate, _, _ = lorenz_fit()
    assert step(surrogate, LORENZ_POINT[None]).norm() < 1e-3


@states("PyDMD test_lando.py test_linear")
def test_the_jacobian_at_the_fixed_point_and_its_eigenvalues_are_found() -> None:
    surrogate, _, _ = lorenz_fit()
    found = jacobian(surrogate, LORENZ_POINT)
    assert relative_error(found, LORENZ_JACOBIAN) < 1e-4
    values, true = (torch.linalg.eigvals(matrix) for matrix in (found, LORENZ_JACOBIAN))
    near(values[values.imag.argsort()], true[true.imag.argsort()], rtol=1e-4)


@states("PyDMD test_lando.py test_nonlinear")
def test_the_nonlinear_remainder_at_the_fixed_point_is_found() -> None:
    surrogate, x, velocity = lorenz_fit()
    linear = (x - LORENZ_POINT) @ LORENZ_JACOBIAN.T
    constant = step(surrogate, LORENZ_POINT[None])
    found = step(surrogate, x) - (x - LORENZ_POINT) @ jacobian(surrogate, LORENZ_POINT).T - constant
    assert relative_error(found, velocity - linear) < 1e-4


@states("PyDMD test_lando.py test_predict_4")
def test_ten_seconds_of_lorenz_follow_from_the_map_of_a_millisecond() -> None:
    x, _ = lorenz()
    surrogate = tk.EDMDFitter(tk.Monomials(3)).update(pairs(x)).surrogate
    state, found = x[:1, None], [x[0]]
    with torch.no_grad():
        for _ in range(len(x) - 1):
            state = surrogate(state)
            found.append(state[0, 0])
    assert relative_error(torch.stack(found), x) < 0.1


@states("PyDMD test_lando.py test_online_2")
def test_a_fit_that_is_updated_is_the_fit_of_everything() -> None:
    surrogate, x, velocity = lorenz_fit()
    fitter = tk.EDMDFitter(tk.Monomials(3))
    for part in (slice(None, 8000), slice(8000, None)):
        fitter.update(tk.Trajectory.of(x[part], velocity[part]))
    assert relative_error(step(fitter.surrogate, x), step(surrogate, x)) < 1e-3


@states("PyDMD test_lando.py test_online_3")
def test_an_update_renews_the_jacobian_at_the_fixed_point() -> None:
    surrogate, x, velocity = lorenz_fit()
    fitter = tk.EDMDFitter(tk.Monomials(3)).update(tk.Trajectory.of(x[:8000], velocity[:8000]))
    before = fitter.surrogate
    after = fitter.update(tk.Trajectory.of(x[8000:], velocity[8000:])).surrogate
    assert step(after, LORENZ_POINT[None]).norm() < 1e-3
    found, true = (jacobian(each, LORENZ_POINT) for each in (after, surrogate))
    assert relative_error(found, true) < 1e-3
    assert not torch.equal(jacobian(before, LORENZ_POINT), found)
