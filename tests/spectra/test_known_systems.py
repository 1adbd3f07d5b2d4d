"""The systems with known eigenvalues: draws obey them, and default fits find and trust them."""

import math

import pytest
import torch

from benchmarks.known.maps import Diffusion, transfer_eigenvalues
from benchmarks.known.systems import SYSTEMS, KnownSystem, bent_spiral
from benchmarks.parts import systems as bench_systems

by_name = pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
POLYNOMIAL = [system for system in SYSTEMS if "random" not in system.name]


@by_name
def test_a_draw_is_reproducible_and_of_its_own_seed(system: KnownSystem) -> None:
    x, y = system.draw(3, 50)
    again, other = system.draw(3, 50), system.draw(4, 50)
    assert torch.equal(x, again[0])
    assert torch.equal(y, again[1])
    assert not torch.equal(x, other[0])
    assert x.dtype == y.dtype == torch.float64


STATIONARY = [each for each in POLYNOMIAL[1:] if "spiral" not in each.name]


@pytest.mark.parametrize("system", STATIONARY, ids=lambda system: system.name)
def test_y_follows_the_law_of_x(system: KnownSystem) -> None:
    """All but the toy and the spirals: means and variances agree to five sampling deviations."""
    x, y = system.draw(0, 4000)
    for power in (1, 2):
        gap = (x**power - y**power).mean(0)
        deviation = (x**power - y**power).std(0) / len(x) ** 0.5
        assert (gap.abs() <= 5 * deviation).all()


@by_name
def test_eigenvalues_are_of_a_chain(system: KnownSystem) -> None:
    """1 is the largest, complex ones come in pairs, and the leading ones are among all known."""
    assert abs(system.known[0] - 1) < 1e-9
    assert (system.known.abs() <= 1 + 1e-9).all()
    assert torch.allclose(system.known.imag.sum(), torch.zeros(1, dtype=torch.float64))
    assert system.distances(system.eigenvalues).max() == 0
    assert (system.eigenvalues.abs().diff() <= 1e-12).all()


def test_errors_match_each_leading_eigenvalue_with_one_found() -> None:
    rotation = SYSTEMS[1]
    conjugates = rotation.eigenvalues[1:]
    errors = rotation.errors(torch.stack([conjugates[0], conjugates[0] + 0.1]))
    assert sorted(errors.tolist())[0] == 0
    assert errors.isinf().sum() == 1


def test_a_linear_drift_has_the_eigenvalues_of_its_euler_steps() -> None:
    """x ↦ (1 - step) x + noise: powers of 1 - step, to the power of the lag."""
    chain = Diffusion(lambda x: -x, noise=0.5, step=0.1, lag=5, reach=4, nodes=300)
    true = 0.9 ** (5 * torch.arange(5, dtype=torch.float64))
    assert torch.allclose(chain.eigenvalues()[:5].real, true, rtol=1e-8)


def test_the_double_well_hops_at_the_rate_of_deeptimes_example() -> None:
    """Its continuous diffusion has .971 and .942 over a time of 1."""
    assert torch.allclose(
        SYSTEMS[6].eigenvalues.real,
        torch.tensor([1, 0.971, 0.971, 0.942], dtype=torch.float64),
        atol=1e-3,
    )


def test_a_density_that_forgets_has_no_second_eigenvalue() -> None:
    values = transfer_eigenvalues(lambda x, y: torch.ones_like(x * y), 0, 1, 20)
    assert values[0].real.item() == pytest.approx(1)
    assert values[1:].abs().max() < 1e-12


@pytest.mark.parametrize("system", POLYNOMIAL, ids=lambda system: system.name)
def test_default_fits_find_the_leading_eigenvalues_and_trust_no_wrong_one(
    system: KnownSystem,
) -> None:
    spectrum = bench_systems.fitted(system, *system.draw(0, system.rows)).spectrum()
    trust = bench_systems.trust(system, spectrum)
    assert trust["wrong and trusted"] == 0
    assert trust["trusted"] > 0
    # Sampling decides the error, 1/√rows; monomials of degree 10 are biased on the logistic map.
    bias = 0.1 if "logistic" in system.name else 0
    bound = 1e-9 if system.rows == 500 else bias + 4 / math.sqrt(system.rows)
    assert system.errors(spectrum.eigenvalues).max() < bound


@pytest.mark.parametrize("seed", range(100, 104))
@pytest.mark.parametrize("shear", [0.0, 3.0, 10.0])
@pytest.mark.parametrize("bend", [0.1, 0.5, 1.5])
@pytest.mark.parametrize("degree", [2, 3, 5])
def test_where_the_operator_is_far_from_normal_no_wrong_eigenvalue_is_trusted(
    seed: int, shear: float, bend: float, degree: int
) -> None:
    """There are laws that hold row by row to a hundredth, of eigenvalues off by up to ten."""
    system = bent_spiral(shear, bend, degree)
    spectrum = bench_systems.fitted(system, *system.draw(seed, 3000)).spectrum()
    trust = bench_systems.trust(system, spectrum)
    assert trust["wrong and trusted"] == 0
    assert trust["found and trusted"] == trust["leading"] == 3


def test_where_points_are_thrown_far_out_a_wrong_one_can_be_trusted_as_the_pages_say() -> None:
    """A limit of first order; where it has fallen, take it off ``docs/limits_spectrum.md``."""
    system = bent_spiral(30.0, 0.5, 3)
    spectra = [
        bench_systems.fitted(system, *system.draw(seed, 3000)).spectrum()
        for seed in range(100, 108)
    ]
    wrong = [bench_systems.trust(system, each)["wrong and trusted"] > 0 for each in spectra]
    assert 0 < sum(wrong) < 5
