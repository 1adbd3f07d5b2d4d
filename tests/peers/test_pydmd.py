"""PyDMD's checks of linear fits: test_dmd.py, test_fbdmd.py, test_xyinput.py, test_snapshots.py.

Left out: what has no counterpart here (optimal amplitudes, rescaled modes, options to sort, time
dictionaries), and further tests of the same claim (test_eigs_1 and _2 are test_shape's, the other
classes' tests are those of test_dmd.py again).
"""

from pathlib import Path

import pytest
import torch

import torchkoopman as tk
from tests.peers.checks import (
    jacobian,
    moving,
    near,
    near_decimals,
    on_purpose,
    orbit,
    pairs,
    states,
    step,
)
from tests.peers.systems import centre, four_points, pulses, side_by_side, turning


def pulse_fit(rank: float = -1) -> tk.Surrogate:
    """The pulses' real and imaginary parts, two real directions for a complex one."""
    return tk.DMDFitter(rank).update(pairs(side_by_side(pulses()))).surrogate


@on_purpose(
    "PyDMD test_dmd.py test_shape",
    "14 pairs of snapshots, but the pulses are of rank 2: directions that do not vary, here those "
    "of rounding, are not modes",
)
def test_as_many_modes_as_pairs() -> None:
    assert len(moving(pulse_fit(-1))) == 2 * 14


@states("PyDMD test_dmd.py test_truncation_shape")
def test_three_modes_of_rank_three() -> None:
    assert len(moving(pulse_fit(3))) == 3


@states("PyDMD test_dmd.py test_rank")
def test_nine_tenths_of_the_variance_are_both_pulses() -> None:
    assert len(moving(pulse_fit(0.9))) == 2 * 2


@states("PyDMD test_dmd.py test_Atilde_shape")
def test_the_operator_is_as_large_as_the_rank_and_the_constant() -> None:
    assert pulse_fit(3).operator.matrix().shape == (1 + 3, 1 + 3)


@on_purpose(
    "PyDMD test_dmd.py test_eigs_3",
    "states are real throughout: complex ones are refused, real and imaginary parts side by side "
    "are taken (see the next test)",
    raises=TypeError,
    match="real",
)
def test_complex_snapshots_are_taken() -> None:
    values = moving(tk.DMDFitter(2).update(pairs(pulses())).surrogate)
    near_decimals(values, torch.exp(torch.tensor([2.8j, 2.3j]) * 4 * torch.pi / 14))


@states("PyDMD test_hankeldmd.py test_eigs_3")
def test_the_pulses_turn_at_their_frequencies() -> None:
    values = moving(pulse_fit(4))
    true = torch.tensor([-0.809016994 + 0.587785252j, -0.473868662 + 0.880595532j])
    near_decimals(values[values.imag > 0].real.sort().values, true.real.double())
    near_decimals(values[values.imag > 0].imag.sort().values, true.imag.double())


@states("PyDMD test_dmd.py test_reconstructed_data")
def test_the_pulses_are_reconstructed() -> None:
    known = side_by_side(pulses())
    near_complex(orbit(pulse_fit(0), known[0], 15), known)


@states("PyDMD test_dmd.py test_dmd_time_3")
def test_a_window_of_the_pulses_is_reconstructed() -> None:
    known = side_by_side(pulses())
    near_complex(orbit(pulse_fit(0), known[0], 12)[8:12], known[8:12])


@states("PyDMD test_dmd.py test_dmd_time_5")
def test_half_a_step_is_not_rounded() -> None:
    surrogate, known = pulse_fit(4), side_by_side(pulses())
    path = surrogate.trajectory(known[5][None, None], times=[0.0, 0.5, 1.0])
    assert (path[0] - path[1]).norm() > 0
    assert (path[1] - path[2]).norm() > 0


@states("PyDMD test_dmd.py test_predict")
def test_the_step_after_each_snapshot_is_predicted() -> None:
    seen, ahead = (side_by_side(values) for values in four_points())
    near_decimals(step(tk.DMDFitter(-1).update(pairs(seen)).surrogate, seen), ahead)


@states("PyDMD test_dmd.py test_load")
def test_a_loaded_fit_reconstructs_the_same(tmp_path: Path) -> None:
    surrogate, known = pulse_fit(), side_by_side(pulses())
    surrogate.save(tmp_path / "pulses.safetensors")
    loaded = tk.Surrogate.load(tmp_path / "pulses.safetensors")
    assert torch.equal(orbit(loaded, known[0], 15), orbit(surrogate, known[0], 15))


@states("PyDMD test_dmd.py test_bitmask_eigs")
def test_a_mask_keeps_the_other_eigenvalues() -> None:
    spectrum = pulse_fit().spectrum()
    kept = torch.ones(len(spectrum.eigenvalues), dtype=torch.bool)
    kept[[0, -1]] = False
    assert torch.equal(spectrum.keep(kept).eigenvalues, spectrum.eigenvalues[1:-1])


@states("PyDMD test_dmd.py test_bitmask_modes")
def test_a_mask_keeps_the_other_modes() -> None:
    spectrum = pulse_fit().spectrum()
    kept = torch.ones(len(spectrum.eigenvalues), dtype=torch.bool)
    kept[[0, -1]] = False
    assert torch.equal(spectrum.keep(kept).modes, spectrum.modes[:, 1:-1])


@states("PyDMD test_dmd.py test_getitem_modes")
def test_chosen_modes_leave_the_spectrum_as_it_was() -> None:
    spectrum = pulse_fit().spectrum()
    before = spectrum.modes.clone()
    chosen = torch.zeros(len(spectrum.eigenvalues), dtype=torch.bool)
    chosen[[1, 3]] = True
    assert torch.equal(spectrum.keep(chosen).modes, before[:, [1, 3]])
    assert torch.equal(spectrum.modes, before)


@states("PyDMD test_dmd.py test_raise_wrong_dtype_bitmask, test_getitem_raises")
@pytest.mark.parametrize("chosen", [torch.full((5,), 0.1), torch.tensor([True, True, False])])
def test_a_mask_of_the_wrong_kind_is_refused(chosen: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="one bool"):
        pulse_fit().spectrum().keep(chosen)


@states("PyDMD test_dmd.py test_not_fitted_get_bitmask_raises")
def test_there_are_no_modes_before_the_fit() -> None:
    with pytest.raises(ValueError, match="no data"):
        tk.DMDFitter(3).surrogate.spectrum()


@states("PyDMD test_fbdmd.py test_modes_shape")
def test_a_turning_plane_has_two_modes() -> None:
    assert len(moving(tk.DMDFitter().update(pairs(turning())).surrogate)) == 2


@states("PyDMD test_fbdmd.py test_truncation_shape")
def test_a_turning_plane_of_rank_one_has_one_mode() -> None:
    assert len(moving(tk.DMDFitter(1).update(pairs(turning())).surrogate)) == 1


@states("PyDMD test_fbdmd.py test_eigs_modulus_1, test_eigs_modulus_2")
def test_a_turning_planes_eigenvalues_lie_on_the_circle() -> None:
    values = moving(tk.DMDFitter().update(pairs(turning())).surrogate)
    near_decimals(values.abs(), torch.ones(2, dtype=torch.float64))


@states("PyDMD test_fbdmd.py test_reconstructed_data")
def test_a_turning_plane_is_reconstructed() -> None:
    known = turning()
    found = orbit(tk.DMDFitter().update(pairs(known)).surrogate, known[0], 100)
    near(found, known, rtol=1e-5, atol=1e-8)


@states("PyDMD test_xyinput.py test_shape_error_1")
def test_pairs_of_different_numbers_are_refused() -> None:
    known = side_by_side(pulses())
    with pytest.raises(ValueError, match="disagree"):
        tk.DMDFitter().update(tk.Trajectory.of(known, known[1:]))


@on_purpose(
    "PyDMD test_xyinput.py test_shape_error_2",
    "layers of a network may have different widths; each then has a frame of its own",
    raises=pytest.fail.Exception,
)
def test_pairs_of_different_widths_are_refused() -> None:
    _, known, _ = centre()
    with pytest.raises(ValueError, match="width"):
        _ = tk.DMDFitter().update(tk.Trajectory.of(known, known[:, 1:])).surrogate


@states("PyDMD test_xyinput.py test_time_shifted_model")
def test_missing_times_do_not_matter() -> None:
    _, known, _ = centre()
    times = torch.cat([torch.arange(0, 1000, 2), torch.arange(1000, 1999)])
    whole = tk.DMDFitter(2).update(pairs(known)).surrogate
    uneven = tk.DMDFitter(2).update(tk.Trajectory.of(known[times], known[times + 1])).surrogate
    near(moving(uneven), moving(whole), rtol=0.01)
    near(jacobian(uneven, known[0]), jacobian(whole, known[0]), rtol=0.01)


@states("PyDMD test_xyinput.py test_time_derivative_model")
def test_pairs_of_states_and_derivatives_give_the_generator() -> None:
    A, known, velocity = centre()
    surrogate = tk.DMDFitter(2).update(tk.Trajectory.of(known, velocity)).surrogate
    near(jacobian(surrogate, known[0]), A, rtol=0.01)


@states("PyDMD test_snapshots.py test_1d")
def test_snapshots_without_features_are_refused() -> None:
    with pytest.raises(ValueError, match="features"):
        tk.Trajectory.of(torch.ones(10), torch.ones(10))


def near_complex(found: torch.Tensor, true: torch.Tensor) -> None:
    """``assert_allclose`` of the complex values whose parts stand side by side."""
    both = (torch.complex(*values.chunk(2, -1)) for values in (found, true))
    near(*both)
