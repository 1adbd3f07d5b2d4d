"""Non-normality: zero for normal matrices and nothing else, and bounds between its quantities."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.systems import draw, turn
from torchkoopman.spectra.normality import non_normality


def normal_matrix(seed: int) -> Tensor:
    """Orthogonally similar to two scaled rotations and a reflection."""
    a, b, c = draw(3, seed=seed).tolist()
    K = torch.block_diag(a * turn(b), c * turn(a), torch.tensor([[b]]).double())
    Q = torch.linalg.qr(draw(5, 5, seed=seed)).Q
    return Q @ K @ Q.T


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_a_normal_matrix_is_its_spectrum(seed: int) -> None:
    K = normal_matrix(seed)
    found = non_normality(K, points=9)
    radius = found.spectral_radius
    assert found.departure < 1e-6
    assert found.eigenvector_condition == pytest.approx(1, abs=1e-6)
    assert found.norm == pytest.approx(radius)
    assert found.numerical_radius == pytest.approx(radius)
    assert found.numerical_abscissa == pytest.approx(
        torch.linalg.eigvals(K).real.max().item(), abs=1e-9
    )
    assert found.excess == pytest.approx(1)
    assert found.kreiss <= 1 + 1e-9
    assert found.growth.tolist() == pytest.approx([radius**t for t in range(21)])


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 6), st.integers(0, 1000))
def test_henricis_departure_is_zero_only_where_the_commutator_is(size: int, seed: int) -> None:
    K = draw(size, size, seed=seed)
    assert (K @ K.T - K.T @ K).norm() > 1e-3
    found = non_normality(K, points=5, horizon=1)
    assert found.departure > 1e-3
    values = torch.linalg.eigvals(K)
    expected = math.sqrt(1 - (values.abs().square().sum() / K.square().sum()).item())
    assert found.departure == pytest.approx(expected)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_its_quantities_are_in_the_order_that_theory_says(size: int, seed: int) -> None:
    found = non_normality(draw(size, size, seed=seed), points=9, horizon=200)
    radius, norm = found.spectral_radius, found.norm
    assert radius <= found.numerical_radius + 1e-9
    assert norm / 2 <= found.numerical_radius * 1.001
    assert found.numerical_radius <= norm + 1e-9
    assert found.numerical_abscissa <= found.numerical_radius * 1.001
    assert found.kreiss <= found.excess * (1 + 1e-6)
    assert found.excess <= found.eigenvector_condition * (1 + 1e-6)


def test_the_numerical_radius_is_the_largest_form_over_unit_vectors() -> None:
    K = draw(3, 3)
    v = torch.complex(draw(40000, 3, seed=1), draw(40000, 3, seed=2))
    v = v / v.norm(dim=1, keepdim=True)
    forms = torch.einsum("ni,ij,nj->n", v.conj(), K.to(v.dtype), v)
    found = non_normality(K, points=3)
    assert forms.abs().max() <= found.numerical_radius * 1.001
    assert forms.abs().max() > 0.97 * found.numerical_radius
    assert forms.real.max() <= found.numerical_abscissa


def test_a_stable_matrix_can_grow_first() -> None:
    """‖K^t‖ of [[0.9, 1], [0, 0.9]] peaks near t = 1/-log 0.9, at about t·0.9^(t-1)."""
    K = torch.tensor([[0.9, 1.0], [0.0, 0.9]])
    found = non_normality(K, horizon=40)
    powers = [torch.linalg.matrix_norm(torch.linalg.matrix_power(K, t), 2) for t in range(41)]
    torch.testing.assert_close(found.growth, torch.stack(powers).double(), rtol=1e-5, atol=1e-6)
    time, peak = found.peak
    assert 8 <= time <= 11
    assert peak == pytest.approx(max(powers).item(), rel=1e-5)
    assert peak > 3.5
    assert 1 < found.kreiss <= found.excess


def test_the_kreiss_bound_is_below_the_growth_of_powers_and_sees_what_the_radius_does_not() -> None:
    jordan = 0.7 * torch.eye(4).double() + torch.diag(torch.ones(3).double(), 1)
    found = non_normality(jordan, horizon=60, points=41)
    by_hand = [
        (z - 0.7) / torch.linalg.svdvals(jordan - z * torch.eye(4))[-1].item()
        for z in (0.75, 0.9, 1.05)  # points of the grid, on the real axis
    ]
    assert max(by_hand) > 1.5
    assert max(by_hand) * (1 - 1e-9) <= found.kreiss <= found.excess


@pytest.mark.parametrize("scale", [1e-12, 0.9, 3.0, 1e12])
def test_the_kreiss_bound_does_not_depend_on_the_scale(scale: float) -> None:
    K = turn(0.5) @ torch.tensor([[0.9, 0.4], [0.0, 0.6]]).double()
    expected = non_normality(K).kreiss
    assert non_normality(scale * K).kreiss == pytest.approx(expected, rel=1e-9)


def test_nilpotent_and_zero_matrices_are_the_two_ends() -> None:
    nilpotent = non_normality(torch.diag(torch.ones(3), 1))
    assert nilpotent.departure == pytest.approx(1)
    assert nilpotent.excess == math.inf
    assert nilpotent.kreiss == math.inf
    nothing = non_normality(torch.zeros(3, 3))
    assert (nothing.departure, nothing.excess, nothing.kreiss) == (0, 1, 1)


def test_a_summary_says_what_a_normal_operator_would_have() -> None:
    lines = str(non_normality(0.5 * turn(1.0), points=5, horizon=3)).splitlines()
    assert lines[0].split() == ["value", "if", "normal"]
    assert lines[3].split() == ["norm", "0.5", "0.5"]
    assert lines[-1] == "largest ‖K^t‖ = 1 at t = 0 of 3 spans"


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"operator has shape \(2, 3\)"):
        non_normality(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="4 of 4 entries that are not finite"):
        non_normality(torch.full((2, 2), math.nan))
    with pytest.raises(ValueError, match="horizon=0 must be at least one span"):
        non_normality(torch.eye(2), horizon=0)
    with pytest.raises(TypeError, match="must be a Surrogate or a matrix; got str"):
        non_normality("K")  # type: ignore[arg-type]
