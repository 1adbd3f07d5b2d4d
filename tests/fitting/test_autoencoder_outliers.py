"""Rows that are not finite or absurdly far out are left out, counted and spoken of."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import torchkoopman as tk
from torchkoopman.fitting import outliers
from torchkoopman.fitting.outliers import BOUND, Sizes, plausible, without
from torchkoopman.observe.trajectory import Trajectory


def path(rows: int = 500, seed: int = 0) -> list[Tensor]:
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))
    return [x, torch.tanh(x), torch.tanh(x).roll(1, 1)]


def fitted(states: list[Tensor], labels: Tensor | None = None, **options: Any) -> tk.Surrogate:
    defaults = {"latent": 8, "hidden": (16,), "calibration": 200, "batch": 64}
    fitter = tk.AutoencoderFitter(**{**defaults, **options})
    for k, parts in enumerate(zip(*(state.split(100) for state in states), strict=True)):
        classes = None if labels is None else labels.split(100)[k]
        fitter.update(Trajectory.of(*parts, labels=classes))
    return fitter.train(100).surrogate


def without_row(states: list[Tensor], row: int) -> list[Tensor]:
    return [torch.cat([state[:row], state[row + 1 :]]) for state in states]


@pytest.mark.parametrize("row", [17, 450], ids=["while calibrating", "later"])
@pytest.mark.parametrize("value", [1e20, -3e38, float("inf"), float("nan")])
@pytest.mark.parametrize("layer", [0, 2])
def test_one_absurd_row_is_left_out_and_spoken_of(row: int, value: float, layer: int) -> None:
    states = path()
    states[layer][row, 1] = value
    with pytest.warns(RuntimeWarning, match="1 rows are not finite or lie more than 1e"):
        surrogate = fitted(states)
    assert surrogate.record.rows == 499
    assert any("1 of 500 rows" in note for note in surrogate.record.notes)
    assert min(surrogate.record.r2.values()) > 0.5


def test_the_fit_without_an_absurd_row_is_the_fit_that_never_saw_it() -> None:
    """Not merely near: batches, coordinates and moments are those of the other rows."""
    states = path(510)
    spoilt = [state.clone() for state in states]
    clean = [torch.cat([state[:100], state[110:]]) for state in states]
    spoilt[1][100:110] = 1e20
    with_rows = tk.AutoencoderFitter(8, hidden=(16,), calibration=150, steps_per_update=0)
    with_rows.update(Trajectory.of(*(state[:110] for state in spoilt)))
    with pytest.warns(RuntimeWarning, match="10 rows"):
        with_rows.update(Trajectory.of(*(state[110:300] for state in spoilt)))
    with_rows.update(Trajectory.of(*(state[300:] for state in spoilt))).train(20)
    without_rows = tk.AutoencoderFitter(8, hidden=(16,), calibration=150, steps_per_update=0)
    for start, stop in ((0, 100), (100, 290), (290, 500)):
        without_rows.update(Trajectory.of(*(state[start:stop] for state in clean)))
    found, expected = with_rows.surrogate, without_rows.train(20).surrogate
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor)
    assert expected.record.notes == ()


def test_labels_stay_with_their_rows_when_others_are_left_out() -> None:
    states, labels = path(), torch.arange(500) % 2
    for state in states:
        state[:, 0] += 100 * labels
    spoilt = [state.clone() for state in states]
    spoilt[0][451::2] = torch.where(labels[451::2, None] == 1, 1e20, spoilt[0][451::2])
    with pytest.warns(RuntimeWarning, match="25 rows"):
        statistics = fitted(spoilt, labels).statistics
    assert statistics is not None
    assert statistics.by_class[0].count == 250
    assert statistics.by_class[1].count == 225


def test_it_is_said_once_and_counted_every_time() -> None:
    fitter = tk.AutoencoderFitter(8, hidden=(16,), calibration=200, steps_per_update=1)
    for parts in zip(*(state.split(100) for state in path(300)), strict=True):
        fitter.update(Trajectory.of(*parts))
    spoilt = path(100, seed=1)
    spoilt[0][:2] = 1e15
    with pytest.warns(RuntimeWarning, match="2 rows"):
        fitter.update(Trajectory.of(*spoilt))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitter.update(Trajectory.of(*spoilt))
    assert any("4 of 500 rows" in note for note in fitter.surrogate.record.notes)


def test_a_calibration_without_one_usable_row_is_a_clear_error() -> None:
    fitter = tk.AutoencoderFitter(8, calibration=50)
    with pytest.raises(ValueError, match=r"none of the 60 rows.*\('0', '1'\)"):
        fitter.update(Trajectory.of(torch.full((60, 2), float("nan")), torch.zeros(60, 2)))


def test_massive_activations_and_heavy_tails_are_not_left_out() -> None:
    """A feature of scale 1e5, and rows ten thousand deviations away, are data."""
    x = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0))
    x[:, 0] *= 1e5
    x[7] *= 1e4
    assert plausible([Trajectory.of(x)]).all()


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_bound_is_in_deviations_whatever_the_units(share: float) -> None:
    """Sparse features are mostly 0: the typical distance is that of the rows that do vary."""
    x = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0)).abs() + 1
    x[: int(1000 * share)] = 0
    for unit in (1e-30, 1.0, 1e20):
        rows = (x.double() * unit).clone()
        rows[0] = 0.1 * BOUND * unit
        assert plausible([Trajectory.of(rows)]).all()
        rows[0] = 100 * BOUND * unit
        assert plausible([Trajectory.of(rows)]).tolist() == [False] + [True] * 999


def test_rows_left_out_are_masked_where_they_stood() -> None:
    states = torch.arange(24.0).view(4, 3, 2)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 1, 1], [1, 0, 0]]).bool()
    trajectory = Trajectory({"a": states}, mask=mask)
    good = torch.tensor([True, False, True, True, False, True, True, True])
    found = without(trajectory, good)
    torch.testing.assert_close(found.rows()["a"], trajectory.rows()["a"][good])


def test_samples_of_different_lengths_calibrate_a_fit() -> None:
    """As sentences are: batches of three, four and five positions, one row of them absurd."""
    fitter = tk.AutoencoderFitter(8, calibration=150)
    batches = []
    for length in (3, 4, 5, 3):
        x = torch.randn(16, length, 5, generator=torch.Generator().manual_seed(length))
        x[0, 0] = 1e20 if length == 4 else x[0, 0]
        batches.append(Trajectory.of(x, x.clamp(max=1).tanh()))
    with pytest.warns(RuntimeWarning, match="1 rows are not finite or lie more than"):
        fitter.update(batches[0]).update(batches[1]).update(batches[2]).update(batches[3])
    assert fitter.surrogate.record.rows == 16 * (3 + 4 + 5 + 3) - 1


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.2, 0.5])
def test_what_is_seen_at_one_feature_changes_no_first_batch(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search that is left out where one feature excludes a gap finds the same rows."""
    for seed, rows in enumerate((3, 10, 11, 100, 101)):
        x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(100 + seed))
        x[: round(share * rows)] *= 1e8
        x[-1, 2] = 1e9
        states = Trajectory.of(x, x)
        found = []
        for search in (outliers._alike, lambda *_: False):
            monkeypatch.setattr(outliers, "_alike", search)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                found.append(Sizes().usable(states).counted())
        assert torch.equal(*found)
