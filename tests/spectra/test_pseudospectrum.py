"""Pseudospectra of normal matrices, Jordan blocks and exact systems, and a search over rows."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.systems import draw, pair, turn
from torchkoopman.koopman.coordinates import Coordinates
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.koopman.operators import Dense
from torchkoopman.koopman.span import FitRecord, Span
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.pairs import layer_pairs
from torchkoopman.spectra.pseudospectrum import Pseudospectrum, pseudospectrum_of
from torchkoopman.spectra.spectrum import spectrum_of


def jordan(size: int, value: float) -> Tensor:
    return value * torch.eye(size).double() + torch.diag(torch.ones(size - 1).double(), 1)


def around(z: Tensor) -> dict[str, Tensor]:
    """A grid whose first point is z."""
    step = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return {"real": z.real + step, "imag": z.imag + step}


def grid_of(result: Pseudospectrum) -> Tensor:
    return torch.complex(result.real.expand_as(result.residuals), result.imag[:, None].clone())


def test_of_a_normal_matrix_it_is_the_distance_to_the_nearest_eigenvalue() -> None:
    K = torch.block_diag(0.9 * turn(0.7), 0.5 * turn(2.0), torch.tensor([[-0.3]]).double())
    Q = torch.linalg.qr(draw(5, 5)).Q
    result = pseudospectrum_of(Q @ K @ Q.T, kind="matrix", points=15)
    values = torch.linalg.eigvals(K)
    expected = (grid_of(result)[..., None] - values).abs().amin(-1)
    torch.testing.assert_close(result.residuals, expected, rtol=0, atol=1e-12)


def test_of_a_jordan_block_it_is_far_more_than_a_disk() -> None:
    """An eigenvalue of a nilpotent block of size n moves by ε^(1/n)."""
    result = pseudospectrum_of(jordan(8, 0.0), kind="matrix", points=41)
    epsilon = 1e-3
    assert result.radius(epsilon) > epsilon ** (1 / 8) - result.resolution
    assert result.radius(epsilon) > 100 * epsilon
    normal = pseudospectrum_of(torch.zeros(8, 8), kind="matrix", points=41)
    assert normal.radius(epsilon) < 1e-12


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 5), st.integers(0, 1000))
def test_it_vanishes_at_the_eigenvalues_of_an_exactly_linear_system(size: int, seed: int) -> None:
    K, start = draw(size, size, seed=seed), draw(60, size, seed=seed + 1)
    moments = pair(start, start @ K.T)
    for z in torch.linalg.eigvals(K):
        assert pseudospectrum_of(K, moments, **around(z)).residuals[0, 0] < 1e-5


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 5), st.integers(0, 1000))
def test_it_is_at_most_an_eigenpairs_own_residual(size: int, seed: int) -> None:
    start = draw(60, size, seed=seed) + 1
    end = (start @ draw(size, size, seed=seed + 1)).sin()
    moments = pair(start, end)
    spectrum = spectrum_of(draw(size, size, seed=seed + 2), moments)
    assert spectrum.residuals is not None
    for z, residual in zip(spectrum.eigenvalues, spectrum.residuals, strict=True):
        least = pseudospectrum_of(torch.eye(size), moments, **around(z)).residuals[0, 0]
        assert least <= residual + 1e-6


def test_no_functional_has_a_smaller_error_over_the_rows_and_one_has_this() -> None:
    """A slow transcription: the generalised singular value problem on the rows themselves."""
    start = draw(80, 3) @ draw(3, 3, seed=5)
    end = (start @ draw(3, 3, seed=1)).tanh()
    result = pseudospectrum_of(torch.eye(3), pair(start, end), points=5)
    # With start = Q R the function wᴴ z has size |R w̄|, so c = R w̄ runs over the unit sphere.
    R = torch.linalg.qr(start).R
    for row, z in enumerate(grid_of(result)):
        for column, point in enumerate(z):
            errors = (end - point * start) @ torch.linalg.inv(R).to(torch.complex128)
            least = torch.linalg.svdvals(errors)[-1]
            torch.testing.assert_close(result.residuals[row, column], least)


def test_noise_raises_the_data_kind_above_the_matrix_kind() -> None:
    """At an eigenvalue of the fit the matrix says 0, the data what no linear map predicts."""
    start = draw(4000, 2)
    K = 0.8 * turn(0.5)
    end = start @ K.T + 0.3 * draw(4000, 2, seed=1)
    z = torch.linalg.eigvals(K)[0]
    assert pseudospectrum_of(K, kind="matrix", **around(z)).residuals[0, 0] < 1e-12
    found = pseudospectrum_of(K, pair(start, end), **around(z)).residuals[0, 0]
    assert found.item() == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("kind", ["residual", "matrix"])
def test_conjugate_points_have_the_same_value_on_any_grid(kind: str) -> None:
    K, start = draw(4, 4), draw(50, 4, seed=1)
    moments = pair(start, (start @ K.T).sin())
    imag = torch.tensor([-0.7, -0.2, 0.2, 0.5, 0.7])
    result = pseudospectrum_of(K, moments, kind=kind, imag=imag, points=5)  # type: ignore[arg-type]
    assert torch.equal(result.residuals[0], result.residuals[4])
    assert torch.equal(result.residuals[1], result.residuals[2])
    # Each row is what it is alone, the lower half included.
    alone = pseudospectrum_of(
        K,
        moments,
        kind=kind,  # type: ignore[arg-type]
        imag=torch.tensor([-0.7, -0.2]),
        points=5,
    )
    torch.testing.assert_close(alone.residuals, result.residuals[:2])


def test_heights_of_a_small_grid_are_told_apart() -> None:
    heights = 1e-13 * torch.arange(1, 5).double()
    found = pseudospectrum_of(
        torch.zeros(2, 2), kind="matrix", real=torch.tensor([-1e-14, 0.0]), imag=heights
    )
    torch.testing.assert_close(found.residuals[:, 1], heights, rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", ["residual", "matrix"])
def test_fewer_directions_can_only_raise_it(kind: str) -> None:
    K, start = draw(8, 8) / 3, draw(200, 8, seed=1)
    moments = pair(start, (start @ K.T).sin())
    found = [
        pseudospectrum_of(K, moments, kind=kind, points=9, rank=rank)  # type: ignore[arg-type]
        for rank in (3, 5, 8)
    ]
    assert [result.kept for result in found][-1] == 8
    assert found[0].kept in (3, 4)
    for fewer, more in pairwise(found):
        assert (fewer.residuals >= more.residuals - 1e-9).all()
    assert found[0].latent == 8


def test_a_leading_invariant_subspace_keeps_its_own_eigenvalues_and_pairs_whole() -> None:
    K = torch.block_diag(0.9 * turn(0.7), torch.tensor([[0.95]]).double(), 0.1 * torch.eye(3))
    K = draw(6, 6, seed=3) @ K @ torch.linalg.inv(draw(6, 6, seed=3))
    for rank, kept in ((1, 1), (2, 3), (3, 3)):
        assert pseudospectrum_of(K, kind="matrix", points=3, rank=rank).kept == kept
    for z in torch.tensor([0.9 * complex(math.cos(0.7), math.sin(0.7)), 0.95]):
        least = pseudospectrum_of(K, kind="matrix", rank=2, **around(z)).residuals[0, 0]
        assert least < 1e-6


def test_directions_the_data_never_excite_are_dropped_and_counted() -> None:
    start = draw(100, 4)
    start[:, 2] = start[:, 0] + 1e-7 * start[:, 2]
    result = pseudospectrum_of(torch.eye(4), pair(start, 0.5 * start), points=5)
    assert (result.kept, result.latent) == (3, 4)
    expected = (grid_of(result) - 0.5).abs()
    torch.testing.assert_close(result.residuals, expected, rtol=0, atol=1e-6)


def test_the_default_grid_covers_the_unit_disk_and_all_eigenvalues() -> None:
    for radius in (0.3, 2.0):
        result = pseudospectrum_of(radius * turn(1.0), kind="matrix", points=5)
        assert result.real[-1].item() == pytest.approx(1.1 * max(1, radius))
        assert torch.equal(result.real, result.imag)
        assert result.imag[2] == 0
    start = draw(100, 2)
    end = start @ torch.diag(torch.tensor([2.0, 0.5])).double()
    assert pseudospectrum_of(torch.eye(2), pair(start, end), points=5).real[-1] == pytest.approx(
        2.2
    )


def test_regions_radii_and_points_are_read_off_the_grid() -> None:
    axis = torch.linspace(-1, 1, 5)
    result = pseudospectrum_of(torch.tensor([[0.5]]), kind="matrix", real=axis, imag=axis)
    expected = (grid_of(result) - 0.5).abs() <= 0.6
    assert torch.equal(result.region(0.6), expected)
    assert result.radius(0.6) == 1.0
    assert math.isnan(
        pseudospectrum_of(torch.tensor([[0.3]]), kind="matrix", real=axis, imag=axis).radius(0.1)
    )
    assert result.contains(0.6, 0.1)
    assert not result.contains(-0.5 + 0.5j, 0.9)
    assert result.at(0.5j) == pytest.approx(math.hypot(0.5, 0.5))
    assert result.resolution == pytest.approx(math.hypot(0.5, 0.5) / 2)


def test_no_value_between_grid_points_is_off_by_more_than_the_resolution() -> None:
    K, start = jordan(4, 0.3), draw(60, 4)
    moments = pair(start, (start @ K.T).sin())
    coarse = pseudospectrum_of(K, moments, points=7)
    fine = pseudospectrum_of(K, moments, points=50)
    for z, value in zip(grid_of(fine).flatten(), fine.residuals.flatten(), strict=True):
        assert abs(coarse.at(z.item()) - value) <= coarse.resolution + 1e-6


def test_a_summary_names_kind_grid_and_directions() -> None:
    start = draw(100, 3)
    result = pseudospectrum_of(0.5 * torch.eye(3), pair(start, 0.5 * start), points=11)
    lines = str(result).splitlines()
    assert lines[0].startswith("residual pseudospectrum on 11 × 11 points, resolution 0.156; 3 of")
    assert len(lines) == 6
    axis = torch.linspace(0, 1, 5)
    cut = pseudospectrum_of(torch.zeros(1, 1), kind="matrix", real=axis, imag=axis)
    assert "grid's edge" in str(cut)


def surrogate_of(statistics: LabelledMoments | None) -> Surrogate:
    frame = Coordinates(torch.eye(2), torch.zeros(2), torch.eye(2))
    dictionary = Dictionary().build(2)
    span = Span(("a", "b"), (0.0, 1.0))
    operator = Dense(3, constant=True)
    operator.start_from(torch.diag(torch.tensor([1.0, 0.8, 0.5])))
    record = FitRecord("dmd", 100)
    return Surrogate(span, [frame, frame], dictionary, operator, record, statistics)


def test_a_surrogate_asks_its_own_statistics() -> None:
    start = torch.cat([torch.ones(100, 1), draw(100, 2)], 1)
    end = start * torch.tensor([1.0, 0.8, 0.4])
    statistics = LabelledMoments(layer_pairs(("start", "end"), "ends"))
    statistics.update({"start": start, "end": end})
    surrogate = surrogate_of(statistics)
    axis = torch.tensor([0.4, 0.5, 0.8, 1.0])
    residual = surrogate.pseudospectrum(real=axis, imag=axis - 0.4).residuals[0]
    matrix = surrogate.pseudospectrum("matrix", real=axis, imag=axis - 0.4).residuals[0]
    assert (residual < 1e-5).tolist() == [True, False, True, True]
    assert (matrix < 1e-5).tolist() == [False, True, True, True]


@pytest.mark.parametrize("kind", ["residual", "matrix"])
def test_one_spurious_eigenvalue_does_not_stretch_a_surrogates_grid(kind: str) -> None:
    """The data say 0.5 ± noise where the matrix says 43, so neither kind's grid reaches for it."""
    start = torch.cat([torch.ones(500, 1), draw(500, 2)], 1)
    end = start * torch.tensor([1.0, 0.8, 0.5])
    statistics = LabelledMoments(layer_pairs(("start", "end"), "ends"))
    statistics.update({"start": start, "end": end})
    surrogate = surrogate_of(statistics)
    surrogate.operator.start_from(torch.diag(torch.tensor([1.0, 0.8, 43.0])))
    result = surrogate.pseudospectrum(kind, points=5)  # type: ignore[arg-type]
    assert result.real[-1].item() == pytest.approx(1.1)
    assert result.beyond == (kind == "matrix")
    told = "1 eigenvalues outside of the grid" in str(result)
    assert told == (kind == "matrix")
    surrogate.operator.start_from(torch.diag(torch.tensor([1.0, 2.0, 43.0])))
    statistics.unlabelled = statistics.unlabelled.__class__(statistics.pairs)
    statistics.update({"start": start, "end": start * torch.tensor([1.0, 2.0, 0.5])})
    grown = surrogate.pseudospectrum(kind, points=5)  # type: ignore[arg-type]
    assert grown.real[-1].item() == pytest.approx(2.2), "a trusted mode that grows is on it"


def test_without_statistics_the_residual_kind_is_refused_and_the_other_is_not() -> None:
    surrogate = surrogate_of(None)
    with pytest.raises(ValueError, match=r"no moments of the latent states.*kind='matrix'"):
        surrogate.pseudospectrum(points=3)
    assert surrogate.pseudospectrum("matrix", points=3).kind == "matrix"


def test_mistakes_are_named() -> None:
    start = draw(50, 3)
    moments, K = pair(start, start), torch.eye(3)
    with pytest.raises(ValueError, match="kind='data' is unknown"):
        pseudospectrum_of(K, moments, kind="data")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"moments are of 3 → 3 latent coordinates, .* has 2"):
        pseudospectrum_of(torch.eye(2), moments)
    with pytest.raises(ValueError, match=r"operator has shape \(2, 3\)"):
        pseudospectrum_of(torch.zeros(2, 3), moments)
    with pytest.raises(ValueError, match="entries that are not finite"):
        pseudospectrum_of(K * math.nan, moments)
    with pytest.raises(ValueError, match="all zero or not all finite"):
        pseudospectrum_of(K, pair(0 * start, start))
    with pytest.raises(ValueError, match="rank=0 must be"):
        pseudospectrum_of(K, moments, rank=0)
    with pytest.raises(ValueError, match=r"real axis must be .*points=1"):
        pseudospectrum_of(K, moments, points=1)
    with pytest.raises(ValueError, match=r"imag axis must be .*\[1.0, 0.0\]"):
        pseudospectrum_of(K, moments, imag=torch.tensor([1.0, 0.0]))
    result = pseudospectrum_of(K, moments, points=3)
    with pytest.raises(ValueError, match=r"lies outside the grid, real parts -1\.1 to 1\.1"):
        result.contains(2.0, 0.1)
    with pytest.raises(ValueError, match="epsilon=0 must be positive"):
        result.region(0)
