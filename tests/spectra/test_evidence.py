"""What data say of eigenpairs: leave-one-out residuals, standard errors, and what is no noise."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

import torchkoopman as tk
from benchmarks.known.systems import SYSTEMS
from benchmarks.parts import systems as bench_systems
from tests.systems import draw
from torchkoopman.koopman.regression import koopman_matrix
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs
from torchkoopman.spectra.evidence import Evidence
from torchkoopman.spectra.grouped import Grouped
from torchkoopman.spectra.spectrum import Spectrum, spectrum_of

RIDGE = 1e-14


def moments_of(start: Tensor, end: Tensor) -> Moments:
    return Moments(layer_pairs(("start", "end"), "ends")).update({"start": start, "end": end})


def with_constant(state: Tensor, *more: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(state[:, :1]), state, *more], 1)


def fitted(start: Tensor, end: Tensor, state: int) -> tuple[Spectrum, Tensor]:
    moments = moments_of(start, end)
    K = koopman_matrix(moments, RIDGE, constant=True)
    evidence = Evidence(start, end, slice(1, 1 + state), fitted=True)
    return spectrum_of(K, moments, evidence), K


def mode_near(spectrum: Spectrum, value: complex) -> int:
    return int((spectrum.eigenvalues - value).abs().argmin())


def test_a_rows_residual_is_that_of_the_fit_without_the_row() -> None:
    """Slowly: the operator is fitted anew without each row, and predicts that row."""
    start, noise = with_constant(draw(30, 3)), draw(30, 3, seed=2)
    end = with_constant(start[:, 1:] @ draw(3, 3, seed=1).T / 3 + noise)
    spectrum, _ = fitted(start, end, 3)
    assert spectrum.residuals is not None
    W = spectrum.functionals
    errors = []
    for row in range(30):
        kept = torch.arange(30) != row
        K = koopman_matrix(moments_of(start[kept], end[kept]), RIDGE, constant=True)
        errors.append((end[row] - K @ start[row]).to(W) @ W.conj())
    sizes = (start.to(W) @ W.conj()).abs().square().mean(0)
    expected = (torch.stack(errors).abs().square().mean(0) / sizes).sqrt()
    torch.testing.assert_close(spectrum.residuals, expected, rtol=1e-6, atol=1e-6)


def faded(x: Tensor, y: Tensor, halflife: float, batch: int = 10) -> tk.Surrogate:
    fitter = tk.DMDFitter(dynamics="span", halflife=halflife, ridge=0.0)
    for some in torch.arange(len(x)).split(batch):
        fitter.update(tk.Trajectory.of(x[some], y[some]))
    return fitter.surrogate


def test_with_a_halflife_the_fit_without_a_row_is_without_its_weight(tmp_path: Path) -> None:
    """Slowly, as above: each row that is kept is predicted by the weighted fit without it."""
    x, y = draw(60, 2), draw(60, 2, seed=1)
    surrogate = faded(x, y, halflife=20, batch=1)
    start, end = (
        surrogate.encode(rows[:, None], layer)[:, 0] for rows, layer in ((x, "0"), (y, "1"))
    )
    weights = 2 ** (-torch.arange(59, -1, -1).double() / 20)
    evidence, spectrum = surrogate.evidence, surrogate.spectrum()
    assert evidence is not None
    W = spectrum.functionals
    errors = []
    for state in evidence.start:
        row = int((start - state).norm(dim=1).argmin())
        roots = weights.where(torch.arange(60) != row, 0.0).sqrt()[:, None]
        K = torch.linalg.lstsq(roots * start, roots * end).solution.T
        errors.append((end[row] - K @ start[row]).to(W) @ W.conj())
    sizes = weights @ (start.to(W) @ W.conj()).abs().square() / weights.sum()
    expected = (torch.stack(errors).abs().square().mean(0) / sizes).sqrt()
    assert 10 < len(errors) < 60
    torch.testing.assert_close(spectrum.residuals, expected, rtol=1e-6, atol=1e-6)
    again = tk.Surrogate.load(surrogate.save(tmp_path / "faded.safetensors"))
    torch.testing.assert_close(again.spectrum().errors, spectrum.errors, rtol=0, atol=0)


def test_with_a_halflife_the_standard_error_is_the_deviation_over_many_draws() -> None:
    A = torch.tensor([[0.8, 0.0], [0.0, -0.4]], dtype=torch.float64)
    found, told = [], []
    for seed in range(150):
        x = draw(400, 2, seed=2 * seed)
        y = x @ A.T + 0.3 * draw(400, 2, seed=2 * seed + 1)
        spectrum = faded(x, y, halflife=60).spectrum()
        assert spectrum.errors is not None
        k = mode_near(spectrum, -0.4)
        found.append(spectrum.eigenvalues[k].real)
        told.append(spectrum.errors[k])
    ratio = torch.stack(told).square().mean().sqrt() / torch.stack(found).std()
    assert ratio.item() == pytest.approx(1, abs=0.2)


def test_rows_that_the_fit_has_not_seen_are_taken_as_they_are() -> None:
    start, end = with_constant(draw(40, 2)), with_constant(draw(40, 2, seed=1))
    K = koopman_matrix(moments_of(start, end), RIDGE, constant=True)
    fresh = with_constant(draw(60, 2, seed=5)), with_constant(draw(60, 2, seed=6))
    spectrum = spectrum_of(K, moments_of(start, end), Evidence(*fresh, slice(1, 3), fitted=False))
    W, values = spectrum.functionals, spectrum.eigenvalues
    error = fresh[1].to(W) @ W.conj() - values * (fresh[0].to(W) @ W.conj())
    sizes = (start.to(W) @ W.conj()).abs().square().mean(0)
    expected = (error.abs().square().mean(0) / sizes).sqrt()
    torch.testing.assert_close(spectrum.residuals, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("uneven", [False, True])
def test_the_standard_error_is_the_deviation_over_many_draws(uneven: bool) -> None:
    """Also where the noise is larger far out, which second moments alone cannot know."""
    A = torch.tensor([[0.8, 0.3], [0.0, 0.5]], dtype=torch.float64)
    found, told = [], []
    for seed in range(150):
        x, noise = draw(400, 2, seed=2 * seed), draw(400, 2, seed=2 * seed + 1)
        size = x.norm(dim=1, keepdim=True) if uneven else 1.0
        spectrum, _ = fitted(with_constant(x), with_constant(x @ A.T + 0.5 * size * noise), 2)
        k = mode_near(spectrum, 0.5)
        assert spectrum.errors is not None
        found.append(spectrum.eigenvalues[k].real)
        told.append(spectrum.errors[k])
    deviation = torch.stack(found).std()
    assert torch.stack(told).median() == pytest.approx(deviation.item(), rel=0.2)


def test_noise_around_a_linear_law_is_no_closure_and_the_law_is_trusted() -> None:
    x = draw(8000, 2)
    end = x * torch.tensor([0.9, 0.6]).double() + draw(8000, 2, seed=1)
    spectrum, _ = fitted(with_constant(x), with_constant(end), 2)
    assert spectrum.residuals is not None
    assert spectrum.closures is not None
    for value in (0.9, 0.6):
        k = mode_near(spectrum, value)
        assert spectrum.residuals[k] > 0.9  # row by row nothing is predicted well
        assert spectrum.closures[k] < 0.08
        assert spectrum.trusted()[k]


def test_what_a_dictionary_misses_is_closure_of_its_true_size() -> None:
    """y = .5 x + .3 (x² - 1) + noise: the linear dictionary misses .3 √2 of the size of x."""
    x = draw(8000, 1)
    end = 0.5 * x + 0.3 * (x.square() - 1) + draw(8000, 1, seed=1)
    spectrum, _ = fitted(with_constant(x), with_constant(end), 1)
    k = mode_near(spectrum, 0.5)
    assert spectrum.closures is not None
    assert spectrum.closures[k] == pytest.approx(0.3 * 2**0.5, rel=0.15)
    assert not spectrum.trusted()[k]


@pytest.mark.parametrize("rows", [45, 60, 120])
def test_a_fit_to_nothing_but_noise_has_no_trusted_mode_but_the_constant(rows: int) -> None:
    """With few rows a function residuals of the fit's own rows would be near zero."""
    for seed in range(5):
        start, end = draw(rows, 40, seed=seed), draw(rows, 40, seed=seed + 100)
        spectrum, K = fitted(with_constant(start), with_constant(end), 40)
        assert spectrum.trusted().nonzero().flatten().tolist() == [mode_near(spectrum, 1.0)]
        without = spectrum_of(K, moments_of(with_constant(start), with_constant(end)))
        assert without.trusted().sum() <= 1


def test_without_rows_residuals_are_raised_by_the_functions_that_were_fitted() -> None:
    start, end = with_constant(draw(10, 9)), with_constant(draw(10, 9, seed=1))
    K = koopman_matrix(moments_of(start, end), 1e-9, constant=True)
    spectrum = spectrum_of(K, moments_of(start, end))
    assert spectrum.residuals is not None
    assert spectrum.residuals.isinf().all() or not spectrum.trusted().any()
    assert spectrum.closures is None


def told_to_found(spectra: Sequence[Spectrum]) -> float:
    """The standard errors at the eigenvalue .7, root mean square, to its deviation over fits."""
    found, told = [], []
    for spectrum in spectra:
        assert spectrum.errors is not None
        k = mode_near(spectrum, 0.7)
        found.append(spectrum.eigenvalues[k].real)
        told.append(spectrum.errors[k])
    return (torch.stack(told).square().mean().sqrt() / torch.stack(found).std()).item()


@pytest.mark.parametrize("together", [0.0, 1.0])
def test_rows_of_long_samples_that_are_not_kept_count_as_they_vary(together: float) -> None:
    """Sixteen of forty rows of a sample are kept, whose noise is its own or partly one for all."""
    rates = torch.tensor([0.7, -0.3], dtype=torch.float64)
    spectra = []
    for seed in range(80):
        own = draw(2, 100, 40, 2, seed=2 * seed)
        x, noise = own + together * draw(2, 100, 1, 2, seed=2 * seed + 1)
        fitter = tk.DMDFitter(dynamics="span").update(tk.Trajectory.of(x, x * rates + 0.1 * noise))
        spectrum = fitter.surrogate.spectrum()
        spectra.append(spectrum)
    assert told_to_found(spectra) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("residuals", [True, "moments"])
def test_standard_errors_of_few_rows_know_how_many_functions_were_fitted(
    residuals: bool | Literal["moments"],
) -> None:
    """21 functions and 44 rows: the fit's own errors are 0.72 times the size of the noise."""
    spectra = []
    rates = torch.zeros(20, dtype=torch.float64)
    rates[0] = 0.7
    for seed in range(100):
        x = draw(44, 20, seed=2 * seed)
        y = x * rates + 1e-3 * draw(44, 20, seed=2 * seed + 1)
        fitter = tk.DMDFitter(dynamics="span", residuals=residuals, frames="shared")
        spectrum = fitter.update(tk.Trajectory.of(x, y)).surrogate.spectrum()
        spectra.append(spectrum)
    assert told_to_found(spectra) == pytest.approx(1, abs=0.15)


def test_evidence_survives_the_file_and_an_edit_is_judged_by_the_same_rows(
    tmp_path: Path,
) -> None:
    x = draw(600, 3)
    labels = torch.arange(600) % 3
    fitter = tk.EDMDFitter(tk.RandomFeatures(10), calibration=100)
    fitter.update(tk.Trajectory.of(x, 0.5 * x + 0.2 * draw(600, 3, seed=1), labels=labels))
    surrogate = fitter.surrogate
    assert surrogate.evidence is not None
    read = tk.Surrogate.load(surrogate.save(tmp_path / "s.safetensors"))
    assert str(read.spectrum()) == str(surrogate.spectrum())
    assert read.evidence is not None
    assert read.evidence.config() == surrogate.evidence.config()
    edited = tk.unlearn(surrogate, [2])
    assert edited.evidence is surrogate.evidence
    assert str(edited.spectrum()) != str(surrogate.spectrum())


def test_the_sample_of_a_long_stream_is_bounded() -> None:
    fitter = tk.DMDFitter()
    for seed in range(30):
        x = draw(2000, 64, seed=seed).float()
        fitter.update(tk.Trajectory.of(x, 0.5 * x))
    evidence = fitter.surrogate.evidence
    assert evidence is not None
    assert sum(tensor.nbytes for tensor in evidence.tensors().values()) < 20 * 2**20
    assert fitter.surrogate.record.rows == 60_000


@pytest.mark.parametrize("wrong", [43.0, 0.5])
def test_an_eigenvalue_that_is_not_the_regressions_is_not_trusted(wrong: float) -> None:
    """Such as an edit's: the error is a function of the dictionary, not of what it misses."""
    x = draw(4000, 3)
    true = torch.tensor([0.9, 0.7, 0.2]).double()
    start, end = with_constant(x), with_constant(x * true + draw(4000, 3, seed=1))
    K = koopman_matrix(moments_of(start, end), RIDGE, constant=True)
    K[2] = 0
    K[2, 2] = wrong
    spectrum = spectrum_of(K, moments_of(start, end), Evidence(start, end, slice(1, 4), True))
    assert spectrum.closures is not None
    k = mode_near(spectrum, wrong)
    assert spectrum.closures[k] == pytest.approx(abs(wrong - 0.7), rel=0.2)
    assert not spectrum.trusted()[k]
    assert spectrum.trusted()[mode_near(spectrum, 0.9)]


def test_an_eigenvalue_that_could_as_well_be_zero_is_not_trusted() -> None:
    """Two nearly parallel eigenvectors: the law holds for each row, and λ is hardly known."""
    start = with_constant(draw(50, 3))
    spectrum, _ = fitted(start, with_constant(0.02 * draw(50, 3, seed=1)), 3)
    assert spectrum.errors is not None
    unsure = spectrum.moduli <= 2 * spectrum.errors
    assert unsure.any()
    assert not spectrum.trusted()[unsure].any()


@pytest.mark.parametrize("seed", [3, 9])
def test_far_out_rows_of_large_leverage_are_no_closure(seed: int) -> None:
    """Monomials of a Gaussian state have heavy tails; there a row outweighs thousands.

    The error of such a row by the fit without it is many times its own, and no function of the
    start that all rows show.
    """
    system = next(system for system in SYSTEMS if "Ornstein" in system.name)
    spectrum = bench_systems.fitted(system, *system.draw(seed, system.rows)).spectrum()
    trust = bench_systems.trust(system, spectrum)
    assert trust["found and trusted"] == trust["found"] == trust["leading"]
    assert trust["wrong and trusted"] == 0


@pytest.mark.parametrize("seed", [100, 101])
def test_what_rows_do_not_determine_is_not_trusted(seed: int) -> None:
    """Of the noisy logistic map's pair 20 000 rows tell ten monomials less than to .05."""
    system = next(system for system in SYSTEMS if "logistic" in system.name)
    spectrum = bench_systems.fitted(system, *system.draw(seed, system.rows)).spectrum()
    trust = bench_systems.trust(system, spectrum)
    assert (trust["found"], trust["found and trusted"]) == (3, 1)
    assert trust["found to no better"] == 2
    assert trust["wrong and trusted"] == 0


@pytest.mark.parametrize("seed", [100, 105])
def test_an_ill_conditioned_eigenvalue_is_not_trusted_for_a_small_error_of_its_law(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A condition of 20 makes a law's error of .1 one of 2 in λ: here .19, where .03 is nearest."""
    system = next(system for system in SYSTEMS if "map, random" in system.name)
    rows = system.draw(seed, system.rows)
    spectrum = bench_systems.fitted(system, *rows).spectrum()
    trust = bench_systems.trust(system, spectrum)
    assert (trust["found"], trust["trusted"], trust["found to no better"]) == (3, 1, 2)
    assert spectrum.closures is not None
    assert spectrum.closures[1:3].min() > 1
    assert spectrum.errors is not None
    known = spectrum.errors < 0.05
    assert system.distances(spectrum.eigenvalues[known]).max() < 0.01
    monkeypatch.setattr("torchkoopman.spectra.evidence.raised", lambda values, errors, _: errors)
    alone = bench_systems.fitted(system, *rows).spectrum().errors
    assert alone is not None
    far = system.distances(spectrum.eigenvalues[alone < 0.05]).max()
    assert far > 0.09, "known by errors of first order, and not right"


def test_what_predicts_unseen_samples_no_better_than_zero_may_be_zero() -> None:
    """150 random features find .137 where the nearest eigenvalue is .037, with little closure."""
    system = next(system for system in SYSTEMS if "random features" in system.name)
    spectrum = bench_systems.fitted(system, *system.draw(6, system.rows)).spectrum()
    assert spectrum.errors is not None
    assert spectrum.closures is not None
    wrong = system.distances(spectrum.eigenvalues) > 0.05 + 3 * spectrum.errors
    assert wrong.any()
    assert (spectrum.closures >= spectrum.moduli)[wrong].all()
    assert not spectrum.trusted()[wrong].any()


def test_a_mean_is_as_uncertain_as_its_samples_are_few() -> None:
    """Rows of one sample alike: 2 000 samples of four rows tell what 2 000 rows tell."""
    once = draw(2000, 3)
    samples = torch.arange(2000).repeat_interleave(4)
    four = Grouped.of(8000, samples, None).deviation(once.repeat_interleave(4, 0))
    alone = Grouped.of(2000, None, None).deviation(once)
    torch.testing.assert_close(four, alone)
    torch.testing.assert_close(alone, once.std(0) / 2000**0.5)
    standing = Grouped.of(2000, None, torch.full((2000,), 7.0)).deviation(once)
    torch.testing.assert_close(standing, alone)


def test_nearly_parallel_modes_do_not_hide_the_energy_of_others() -> None:
    """A Jordan block's two modes cancel almost wholly, and .5 is as true as ever."""
    step = torch.tensor([[0.9, 1, 0], [0, 0.9, 0], [0, 0, 0.5]], dtype=torch.float64)
    x = draw(500, 3)
    spectrum = tk.DMDFitter().update(tk.Trajectory.of(x, x @ step.T)).surrogate.spectrum()
    for value in (1.0, 0.5):
        k = mode_near(spectrum, value)
        assert spectrum.energies is not None
        assert spectrum.energies[k] > 0.01
        assert spectrum.trusted()[k]
    assert spectrum.energies is not None
    assert spectrum.energies.sum() == pytest.approx(1)
