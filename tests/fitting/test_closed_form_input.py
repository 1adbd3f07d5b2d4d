"""What surrounds a closed form, and rows that no fit should follow."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import torchkoopman as tk
from torchkoopman.fitting.quality import Unexplained
from torchkoopman.observe.trajectory import Trajectory

Make = Callable[[], tk.DMDFitter | tk.EDMDFitter]
FITTERS: list[Make] = [
    tk.DMDFitter,
    lambda: tk.EDMDFitter(tk.RandomFeatures(30), calibration=500),
]
fitters = pytest.mark.parametrize("make", FITTERS, ids=["dmd", "edmd"])


def path(rows: int = 1500) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 5, generator=generator)
    return x, torch.tanh(x @ torch.randn(5, 5, generator=generator))


def fitted(make: Make, x: Tensor, y: Tensor) -> tk.Surrogate:
    fitter = make()
    for rows in torch.arange(len(x)).split(250):
        fitter.update(Trajectory.of(x[rows], y[rows]))
    return fitter.surrogate


@fitters
def test_a_fit_inside_autocast_or_inference_mode_is_the_fit_outside(make: Make) -> None:
    x, y = path()
    outside = fitted(make, x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = fitted(make, x, y)
    with torch.inference_mode():
        inferred = fitted(make, x.clone(), y.clone())
    for inside in (cast, inferred):
        assert torch.equal(inside(x[:, None]), outside(x[:, None]))
        assert inside.record == outside.record


@fitters
def test_a_default_of_float64_changes_nothing(make: Make) -> None:
    x, y = path()
    outside = fitted(make, x, y)
    torch.set_default_dtype(torch.float64)
    try:
        inside = fitted(make, x, y)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(inside(x[:, None]), outside(x[:, None]))


@fitters
@pytest.mark.parametrize("row", [3, 700])
def test_a_row_of_1e20_is_left_out_counted_and_said(make: Make, row: int) -> None:
    x, y = path()
    kept = torch.arange(len(x)) != row
    spoilt = x.clone()
    spoilt[row] = 1e20
    with pytest.warns(
        RuntimeWarning, match=r"1 rows are not finite or more than 1e\+06 times larger"
    ):
        surrogate = fitted(make, spoilt, y)
    assert surrogate.record.rows == len(x) - 1
    assert "1 rows were left out" in surrogate.record.notes[-1]
    clean = fitted(make, x[kept], y[kept])
    left = [Unexplained().update(each(x[:, None])[:, 0], y).value for each in (surrogate, clean)]
    assert left[0] < 1.3 * left[1] < 0.5


@fitters
def test_rows_one_by_one_are_measured_by_those_before(make: Make) -> None:
    x, y = path(700)
    fitter = make()
    for row in range(699):
        fitter.update(Trajectory.of(x[row : row + 1], y[row : row + 1]))
    with pytest.warns(RuntimeWarning, match="times larger"):
        fitter.update(Trajectory.of(torch.full((1, 5), 1e20), y[699:]))
    assert fitter.surrogate.record.rows == 699


@fitters
def test_states_of_any_scale_that_float32_has_are_followed_alike(make: Make) -> None:
    x, y = path()
    expected = fitted(make, x, y)(x[:, None])
    for scale in (1e-30, 1e-12, 1e12, 1e28):
        found = fitted(make, x * scale, y * scale)(x[:, None] * scale) / scale
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-2)


@fitters
def test_states_below_what_float32_can_scale_are_refused_by_name(make: Make) -> None:
    x, y = path()
    with pytest.raises(ValueError, match=r"layer '0' varies by no more than .*multiply its states"):
        fitted(make, x * 1e-39, y * 1e-39)


@fitters
def test_an_orbit_that_decays_over_thirty_decades_is_followed_whole(make: Make) -> None:
    orbit = (
        10.0 * 0.9 ** torch.arange(700, dtype=torch.float64)[:, None] * torch.ones(1, 3).double()
    )
    fitter = make()
    for rows in torch.arange(699).split(100):
        fitter.update(Trajectory.of(orbit[rows], orbit[rows + 1]))
    assert fitter.surrogate.record.rows == 699
    assert fitter.surrogate.record.notes == ()


@fitters
def test_a_stream_may_grow_and_a_layer_may_be_zero_at_first(make: Make) -> None:
    x, y = path()
    fitter = make().update(Trajectory.of(torch.zeros(50, 5), torch.zeros(50, 5)))
    for power in range(6):
        fitter.update(Trajectory.of(10.0**power * x, 10.0**power * y))
    assert fitter.surrogate.record.rows == 50 + 6 * len(x)


@fitters
@pytest.mark.parametrize("rows", [7, 700])
def test_a_fit_of_fewer_rows_than_were_left_out_is_warned_of(make: Make, rows: int) -> None:
    """Rows beyond a gap are left out; where the first are nearly 0, these are all the others."""
    x, y = path(2000)
    first, others = slice(0, 600), slice(600, 600 + rows)
    fitter = make().update(Trajectory.of(1e-8 * x[first], 1e-8 * y[first]))
    with pytest.warns(RuntimeWarning, match=f"{rows} rows are not finite or more than") as told:
        fitter.update(Trajectory.of(x[others], y[others]))
    assert told[0].filename == __file__
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert fitter.surrogate.record.rows == 600
    said = [str(each.message) for each in caught]
    assert {each.filename for each in caught if "in the fit" in str(each.message)} <= {__file__}
    assert any("700 rows were left out and 600 are in the fit" in each for each in said) == (
        rows == 700
    )
