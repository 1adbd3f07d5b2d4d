"""Eigenvalues that noise draws apart from one, farther than standard errors of first order say."""

import pytest
import torch
from torch import Tensor

import torchkoopman as tk
from torchkoopman.spectra.clusters import raised


def block(value: float, size: int, coupling: float) -> Tensor:
    """One eigenvalue ``size`` times, with one eigenvector."""
    above = torch.full((size - 1,), coupling, dtype=torch.float64)
    return value * torch.eye(size, dtype=torch.float64) + torch.diag(above, 1)


def spectrum(matrix: Tensor, seed: int, rows: int, noise: float) -> tk.results.Spectrum:
    generator = torch.Generator().manual_seed(seed)
    x, xi = torch.randn(2, rows, len(matrix), generator=generator, dtype=torch.float64)
    fitter = tk.DMDFitter(dynamics="span")
    return fitter.update(tk.Trajectory.of(x, x @ matrix.T + noise * xi)).surrogate.spectrum()


@pytest.mark.parametrize("coupling", [0.3, 1.0])
@pytest.mark.parametrize("value", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_of_a_jordan_block_in_noise_no_wrong_eigenvalue_is_trusted(
    size: int, value: float, coupling: float
) -> None:
    """Without the radius of its cluster, of blocks of four and five one in four would be."""
    for rows, noise in ((1000, 0.1), (3000, 0.01), (3000, 0.3)):
        for seed in range(100, 104):
            found = spectrum(block(value, size, coupling), seed, rows, noise)
            assert found.errors is not None
            known = torch.tensor([1.0, value], dtype=torch.complex128)
            off = (found.eigenvalues[:, None] - known).abs().amin(1)
            assert (off[found.trusted()] <= 0.05 + 3 * found.errors[found.trusted()]).all()


def test_first_order_alone_would_trust_wrong_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "torchkoopman.spectra.evidence.raised", lambda values, errors, known: errors
    )
    wrong = 0
    for seed in range(100, 104):
        found = spectrum(block(0.7, 5, 1.0), seed, 3000, 0.01)
        assert found.errors is not None
        off = (found.eigenvalues - 0.7).abs().minimum((found.eigenvalues - 1).abs())
        wrong += int((off > 0.05 + 3 * found.errors)[found.trusted()].sum())
    assert wrong > 4


def test_eigenvalues_of_normal_operators_stand_each_for_itself() -> None:
    """Two that are near move by as much as the noise, so they are trusted as others are."""
    matrix = torch.diag(torch.tensor([0.7, 0.6, 0.5], dtype=torch.float64))
    found = spectrum(matrix, 100, 3000, 0.5)
    assert found.errors is not None
    assert (found.errors < 0.03).all()
    assert found.trusted().all()


def test_the_radius_counts_of_ill_conditioned_ones_within_twenty_errors() -> None:
    values = torch.tensor([0.9, 0.7, 0.1], dtype=torch.complex128)
    errors = torch.tensor([0.02, 0.008, 0.02], dtype=torch.float64)
    ill = torch.full((3,), 9.0, dtype=torch.float64)
    found = raised(values, errors, ill)
    torch.testing.assert_close(found[0].item(), (0.1**2 + 0.02**2) ** 0.5)
    assert found[1:].equal(errors[1:])  # .2 is 25 of the second's errors, .6 30 of the third's
    assert raised(values, errors, torch.ones(3)).equal(errors)
    near = torch.tensor([0.75, 0.7, 0.1], dtype=torch.complex128)  # a radius below what counts
    assert raised(near, errors, ill).equal(errors)


def test_an_infinite_or_unknown_error_stays_so() -> None:
    values = torch.tensor([0.9, 0.7], dtype=torch.complex128)
    errors = torch.tensor([torch.inf, torch.nan], dtype=torch.float64)
    found = raised(values, errors, torch.full((2,), torch.inf, dtype=torch.float64))
    assert found[0] == torch.inf
    assert found[1].isnan()
