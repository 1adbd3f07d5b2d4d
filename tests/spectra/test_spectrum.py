"""Spectra of systems whose spectrum is known, and residuals against a loop over rows."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import torchkoopman as tk
from tests.systems import draw, pair, turn
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs
from torchkoopman.spectra.matrices import matrix_of
from torchkoopman.spectra.spectrum import Spectrum, spectrum_of


def residual_of(spectrum: Spectrum, k: int, start: Tensor, end: Tensor) -> float:
    """√(E|wᴴz' - λ wᴴz|² / E|wᴴz|²), row by row."""
    w, value = spectrum.functionals[:, k].tolist(), spectrum.eigenvalues[k].item()
    error = size = 0.0
    for z, image in zip(start.tolist(), end.tolist(), strict=True):
        now = sum(a.conjugate() * b for a, b in zip(w, z, strict=True))
        then = sum(a.conjugate() * b for a, b in zip(w, image, strict=True))
        error += abs(then - value * now) ** 2
        size += abs(now) ** 2
    return math.sqrt(error / size)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.05, 3.0))
def test_the_spectrum_of_a_rotation_lies_on_the_unit_circle_at_its_frequency(angle: float) -> None:
    spectrum = spectrum_of(turn(angle))
    torch.testing.assert_close(spectrum.moduli, torch.ones(2).double())
    assert sorted(spectrum.frequencies.tolist()) == pytest.approx(
        [-angle / (2 * math.pi), angle / (2 * math.pi)]
    )
    assert spectrum.decays.abs().max() < 1e-12
    assert spectrum.outside() == 0


@settings(deadline=None, max_examples=20)
@given(st.floats(0.01, 3.0), st.floats(0.05, 3.0))
def test_the_spectrum_of_a_decay_lies_inside_at_its_rate(decay: float, angle: float) -> None:
    spectrum = spectrum_of(math.exp(-decay) * turn(angle))
    assert spectrum.radius == pytest.approx(math.exp(-decay))
    assert spectrum.decays.tolist() == pytest.approx([decay, decay])
    assert spectrum.rates.real.tolist() == pytest.approx([-decay, -decay])
    assert sorted(spectrum.rates.imag.tolist()) == pytest.approx([-angle, angle])


def test_growth_lies_outside_and_is_counted() -> None:
    spectrum = spectrum_of(torch.diag(torch.tensor([1.2, 1 + 1e-9, -3.0, 0.5])))
    assert spectrum.outside() == 2
    assert spectrum.outside(tolerance=0.5) == 1
    assert spectrum.radius == pytest.approx(3)
    assert spectrum.eigenvalues.real.tolist() == pytest.approx([-3, 1.2, 1, 0.5])
    assert spectrum.frequencies[0].abs().item() == pytest.approx(0.5)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 8), st.integers(0, 1000))
def test_modes_and_functionals_are_right_and_left_eigenvectors_of_unit_length(
    size: int, seed: int
) -> None:
    K = draw(size, size, seed=seed)
    spectrum = spectrum_of(K)
    values, V, W = spectrum.eigenvalues, spectrum.modes, spectrum.functionals
    complex_k = K.to(V.dtype)
    torch.testing.assert_close(complex_k @ V, V * values, rtol=0, atol=1e-8)
    torch.testing.assert_close(W.mH @ complex_k, values[:, None] * W.mH, rtol=0, atol=1e-8)
    one = torch.ones(size).double()
    torch.testing.assert_close(V.norm(dim=0), one)
    torch.testing.assert_close(W.norm(dim=0), one)
    assert (spectrum.moduli.diff() <= 1e-12).all()


def test_residuals_are_the_error_of_each_eigenfunction_over_the_rows() -> None:
    start = draw(50, 4) + 1
    end = (start @ draw(4, 4, seed=1)).sin() + 0.1 * draw(50, 4, seed=2)
    spectrum = spectrum_of(draw(4, 4, seed=3), pair(start, end))
    assert spectrum.eigenvalues.imag.abs().max() > 0.1
    assert spectrum.residuals is not None
    raised = 50 / (50 - 4)  # for four functions of fifty rows that the fit may have seen
    expected = [raised * residual_of(spectrum, k, start, end) for k in range(4)]
    assert spectrum.residuals.tolist() == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_residuals_of_an_exact_linear_system_vanish(size: int, seed: int) -> None:
    K, start = draw(size, size, seed=seed), draw(50, size, seed=seed + 1)
    spectrum = spectrum_of(K, pair(start, start @ K.T))
    assert spectrum.residuals is not None
    assert spectrum.residuals.max() < 1e-5


def test_the_residual_of_a_spurious_eigenvalue_is_its_distance_from_the_true_one() -> None:
    truth = torch.diag(torch.tensor([0.9, 0.5])).double()
    start = draw(50, 2)
    wrong = torch.diag(torch.tensor([0.9, 0.7])).double()
    spectrum = spectrum_of(wrong, pair(start, start @ truth.T))
    assert spectrum.residuals is not None
    assert spectrum.residuals.tolist() == pytest.approx([0, 0.2 * 50 / 48], abs=1e-7)


def test_the_residual_of_what_the_data_never_excite_is_unknown() -> None:
    start = draw(50, 3)
    start[:, 1] = 0
    K = torch.diag(torch.tensor([0.9, 0.7, 0.5])).double()
    spectrum = spectrum_of(K, pair(start, start @ K.T))
    assert spectrum.residuals is not None
    assert spectrum.energies is not None
    assert spectrum.residuals.isnan().tolist() == [False, True, False]
    assert spectrum.energies[1] == 0


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_energies_are_shares_that_sum_to_one(size: int, seed: int) -> None:
    K, start = draw(size, size, seed=seed), draw(50, size, seed=seed + 1)
    energies = spectrum_of(K, pair(start, start)).energies
    assert energies is not None
    assert energies.min() >= 0
    assert energies.sum().item() == pytest.approx(1)


def test_energies_of_orthogonal_modes_are_shares_of_the_second_moment() -> None:
    K = torch.diag(torch.tensor([0.9, 0.7, 0.5])).double()
    start = draw(50, 3) * torch.tensor([1.0, 3.0, 2.0]) + 1
    energies = spectrum_of(K, pair(start, start)).energies
    assert energies is not None
    torch.testing.assert_close(energies, start.square().sum(0) / start.square().sum())


def test_without_data_there_are_no_residuals_and_no_energies() -> None:
    for moments in (None, Moments(layer_pairs(("start", "end"), "ends"))):
        spectrum = spectrum_of(turn(1.0), moments)
        assert spectrum.residuals is None
        assert spectrum.energies is None
        assert len(spectrum.summary().splitlines()) == 4


def test_a_summary_prints_every_column_and_the_leading_modes() -> None:
    K = torch.block_diag(0.9 * turn(math.pi / 2), torch.tensor([[0.5]]).double())
    start = torch.cat([draw(500, 2), torch.zeros(500, 1)], 1)
    start[:, 2] = 2
    spectrum = spectrum_of(K, pair(start, start @ K.T))
    lines = spectrum.summary(modes=2).splitlines()
    assert lines[0] == (
        "3 modes, 3 trusted, the largest trusted |λ| 0.9000; "
        "spectral radius 0.9000; 0 outside the unit circle"
    )
    names = ["λ", "(span)", "±", "error", "|λ|", "decay", "turns", "residual", "closure"]
    names += ["condition", "energy"]
    assert lines[1].split() == names
    assert len({len(line) for line in lines[1:4]}) == 1
    row = next(line for line in spectrum.summary().splitlines() if "0.9000i" in line)
    fields = row.split()
    assert fields[1] in ("+0.9000i", "-0.9000i")
    assert float(fields[2]) == pytest.approx(0, abs=1e-4)
    assert fields[3:5] == ["0.9000", f"{-math.log(0.9):+.4f}"]
    assert fields[5] in ("+0.2500", "-0.2500")
    assert float(fields[6]) == pytest.approx(0, abs=1e-4)
    assert float(fields[7]) >= 1, "the condition; without rows there is no closure"
    assert fields[8].endswith("%")
    assert lines[-1] == "… and 1 more"
    assert str(spectrum) == spectrum.summary()
    assert "more" not in str(spectrum)


@pytest.mark.parametrize("size", [2, 4])
def test_a_defective_matrix_has_a_spectrum_all_the_same(size: int) -> None:
    jordan = 0.5 * torch.eye(size) + torch.diag(torch.ones(size - 1), 1)
    start = draw(50, size)
    spectrum = spectrum_of(jordan, pair(start, start @ jordan.double().T))
    assert spectrum.eigenvalues.tolist() == pytest.approx([0.5] * size, abs=1e-3)
    assert spectrum.functionals.isfinite().all()
    assert spectrum.energies is not None
    assert spectrum.energies.isfinite().all()
    assert "modes" in spectrum.summary()


def test_a_spectrum_neither_keeps_a_graph_nor_changes_the_matrix() -> None:
    K = turn(1.0).float().requires_grad_()
    before = K.detach().clone()
    spectrum = spectrum_of(K)
    assert not spectrum.eigenvalues.requires_grad
    assert spectrum.eigenvalues.dtype == torch.complex128
    assert torch.equal(K.detach(), before)


def test_trusted_modes_are_those_whose_law_holds_relative_to_their_modulus() -> None:
    """0.9 is true; 0.7 should be 0.5; 0.001 should be 0.002, an absolute error of next to nothing;
    the last is never excited."""
    truth = torch.diag(torch.tensor([0.9, 0.5, 0.002, 0.3])).double()
    start = draw(50, 4)
    start[:, 3] = 0
    wrong = torch.diag(torch.tensor([0.9, 0.7, 0.001, 0.3])).double()
    spectrum = spectrum_of(wrong, pair(start, start @ truth.T))
    assert spectrum.eigenvalues.real.tolist() == pytest.approx([0.9, 0.7, 0.3, 0.001])
    assert spectrum.trusted().tolist() == [True, False, False, False]
    assert spectrum.trusted(0.3).tolist() == [True, True, False, False]
    assert spectrum.trusted(1.01).tolist() == [True, True, False, True]
    assert spectrum.trusted(energy=0.9).tolist() == [False] * 4
    lines = spectrum.summary().splitlines()
    assert "1 trusted" in lines[0]
    assert [line.endswith("?") for line in lines[2:]] == [False, True, True, True]


def judged(value: float, residual: float, closure: float, error: float) -> bool:
    """Whether one mode with these numbers is trusted."""
    one = torch.ones(1, 1, dtype=torch.complex128)
    numbers = (torch.tensor([number]).double() for number in (residual, 0.1, error, closure))
    return bool(Spectrum(value * one[0], one, one, *numbers).trusted())


@pytest.mark.parametrize(
    ("value", "residual", "closure", "error"),
    [
        (0.9, 0.9, 0.01, 0.06),  # could as well be .78
        (30.0, 0.01, 0.01, 2.0),  # could as well be 26, though its law holds row by row
        (300.0, 12.0, 4.0, 9.0),  # holds to 4 % of λ, as do many other numbers
        (0.9, 0.06, 0.2, 0.0),
        (0.02, 0.01, 0.01, 0.0),  # 0 obeys that law as well
        (0.1, 0.9, 0.01, 0.06),
    ],
)
def test_a_law_that_other_eigenvalues_obey_as_well_is_not_trusted(
    value: float, residual: float, closure: float, error: float
) -> None:
    assert not judged(value, residual, closure, error)


@pytest.mark.parametrize(
    ("value", "residual", "closure", "error"),
    [(0.9, 0.9, 0.01, 0.02), (30.0, 40.0, 0.04, 1.0), (300.0, 0.01, 0.01, 0.1)],
)
def test_a_growing_or_shrinking_law_that_is_known_is_trusted(
    value: float, residual: float, closure: float, error: float
) -> None:
    assert judged(value, residual, closure, error)


@pytest.mark.parametrize(("condition", "trusted"), [(1.0, True), (24.0, True), (26.0, False)])
def test_a_law_whose_small_error_can_move_the_eigenvalue_far_is_not_trusted(
    condition: float, trusted: bool
) -> None:
    one = torch.ones(1, 1, dtype=torch.complex128)
    numbers = (torch.tensor([number]).double() for number in (0.01, 0.1, 0.0, 1.0, condition))
    assert bool(Spectrum(0.9 * one[0], one, one, *numbers).trusted()) is trusted


def test_conditions_are_those_of_the_matrix_in_the_metric_of_the_data() -> None:
    """Of [[.9, s], [0, .5]] on white rows √(1 + (s / .4)²) for both; of moments alone the same."""
    x = draw(4000, 2)
    K = torch.tensor([[0.9, 4.0], [0.0, 0.5]], dtype=torch.float64)
    for fitter in (tk.DMDFitter(), tk.DMDFitter(dynamics="span", residuals="moments")):
        spectrum = fitter.update(tk.Trajectory.of(x, x @ K.T)).surrogate.spectrum()
        assert spectrum.conditions is not None
        assert spectrum.conditions[0] == pytest.approx(1, abs=0.1), "the constant's"
        assert spectrum.conditions[1:].tolist() == pytest.approx([math.hypot(1, 10)] * 2, rel=0.1)
        kept = spectrum.keep(spectrum.moduli < 0.7).conditions
        assert kept is not None
        assert len(kept) == 1


def test_the_summary_says_why_modes_are_not_trusted() -> None:
    one = torch.eye(4, dtype=torch.complex128)
    values = torch.tensor([300.0, 20.0, 0.9, 0.5]).to(one)
    residuals, errors = torch.tensor([[12.0, 0.01, 0.01, 0.01], [9.0, 5.0, 0.0, 0.0]]).double()
    energies = torch.tensor([0.4, 0.3, 0.3, 0.0]).double()
    head = Spectrum(values, one, one, residuals, energies, errors).summary().splitlines()[0]
    assert "4 modes, 1 trusted (?: law 1, λ unknown 1, energy 1)" in head


def test_trust_without_data_or_with_negative_thresholds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"without data.*surrogate\.spectrum\(\)"):
        spectrum_of(turn(1.0)).trusted()
    start = draw(50, 2)
    spectrum = spectrum_of(turn(1.0), pair(start, start))
    for wrong in (-1, math.nan):
        with pytest.raises(ValueError, match=rf"tolerance={wrong}, energy=1e-09"):
            spectrum.trusted(wrong)


def test_what_is_no_finite_real_square_matrix_is_refused_by_name() -> None:
    with pytest.raises(
        ValueError, match=r"operator has shape \(2, 3\); expected \(latent, latent\)"
    ):
        spectrum_of(draw(2, 3))
    with pytest.raises(ValueError, match="operator has 1 of 4 entries that are not finite"):
        spectrum_of(torch.tensor([[1.0, 0.0], [math.nan, 1.0]]))
    with pytest.raises(TypeError, match="complex64"):
        spectrum_of(torch.eye(2) * 1j)
    with pytest.raises(TypeError, match="the first must be a Surrogate or a matrix; got list"):
        matrix_of([[1.0]], "the first")  # type: ignore[arg-type]


@settings(deadline=None, max_examples=20)
@given(st.floats(0.01, 3.0), st.floats(0.05, 3.0))
def test_in_its_timescale_a_mode_shrinks_to_one_over_e(decay: float, angle: float) -> None:
    for sign in (1, -1):
        scales = spectrum_of(math.exp(-sign * decay) * turn(angle)).timescales
        assert scales.tolist() == pytest.approx([sign / decay] * 2)


def test_timescales_are_infinite_on_the_unit_circle_and_zero_for_what_vanishes() -> None:
    assert spectrum_of(turn(1.0)).timescales.tolist() == [math.inf] * 2
    constant = torch.tensor([[1.0, 0.0], [0.3, 0.0]])
    assert spectrum_of(constant).timescales.tolist() == [math.inf, 0.0]
    assert spectrum_of(torch.tensor([[1.0 - 1e-6]])).timescales.item() == pytest.approx(
        1e6, rel=0.1
    )


def test_kept_modes_are_the_chosen_ones_with_what_belongs_to_each() -> None:
    K, start = draw(4, 4), draw(50, 4, seed=1)
    spectrum = spectrum_of(K, pair(start, (start @ K.T).sin()))
    chosen = spectrum.moduli > spectrum.moduli.median()
    part = spectrum.keep(chosen)
    assert torch.equal(part.eigenvalues, spectrum.eigenvalues[chosen])
    torch.testing.assert_close(K.to(part.modes.dtype) @ part.modes, part.modes * part.eigenvalues)
    assert part.residuals is not None
    assert part.energies is not None
    assert part.energies.sum() < 1
    assert torch.equal(part.trusted(0.5), spectrum.trusted(0.5)[chosen])
    nothing = spectrum_of(K).keep(torch.zeros(4, dtype=torch.bool))
    assert nothing.radius == 0
    assert nothing.summary().startswith("0 modes; spectral radius 0.0000")
    with pytest.raises(ValueError, match=r"shape \(2,\) and torch\.int64; expected .* 4 modes"):
        spectrum.keep(torch.tensor([0, 1]))
