"""Betti curves: counts, exact integrals, a metric, and a band."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.systems import draw
from torchkoopman.topology.betti import BettiCurve, betti_curve, subsamples
from torchkoopman.topology.persistence import deaths, diagram

GRID = torch.linspace(0, 3, 40, dtype=torch.float64)


def curve(seed: int, dimension: int = 0, size: float = 1.0) -> BettiCurve:
    return betti_curve(size * draw(30, 3, seed=seed), dimension, scales=GRID)


@pytest.mark.parametrize("dimension", [0, 1])
def test_values_count_features_born_and_not_dead(dimension: int) -> None:
    cloud = draw(40, 3)
    found = betti_curve(cloud, dimension, scales=GRID)
    pairs = diagram(cloud, dimension)
    for epsilon, value in zip(GRID.tolist(), found.values.tolist(), strict=True):
        count = sum(birth <= epsilon < death for birth, death in pairs.tolist())
        assert value == found.at(epsilon) == count


def test_betti_0_falls_from_the_number_of_points_to_one() -> None:
    found = betti_curve(draw(50, 4))
    assert found.at(0.0) == 50
    assert (found.values.diff() <= 0).all()
    assert found.values[-1] == found.at(1e9) == 1


def test_scales_of_its_own_end_at_the_last_death_and_are_even_in_their_logarithm() -> None:
    cloud = draw(50, 4)
    grid = betti_curve(cloud, scales=20).scales
    assert grid.shape == (20,)
    assert grid[-1] == deaths(cloud)[-1]
    ratios = grid[1:] / grid[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(19))


def test_area_is_the_sum_of_lifetimes() -> None:
    cloud = draw(50, 4)
    found = betti_curve(cloud)
    lifetimes = deaths(cloud).sum() + found.scales[-1]
    assert found.area() == pytest.approx(lifetimes.item())
    assert found.area((0.0, 1.0)) + found.area((1.0, 99.0)) == pytest.approx(found.area())


def test_distance_of_components_is_the_wasserstein_distance_of_their_deaths() -> None:
    a, b = draw(40, 3), 0.7 * draw(40, 3, seed=1)
    mine = betti_curve(a)
    theirs = betti_curve(b, scales=mine.scales)
    top = mine.scales[-1]
    expected = (deaths(a) - deaths(b).clamp(max=top)).abs().sum().item()
    assert mine.distance(theirs) == pytest.approx(expected)
    assert mine.relative(theirs) == pytest.approx(expected / mine.area())
    parts = [(0.0, 0.4), (0.4, 0.9), (0.9, 1e9)]
    assert sum(mine.distance(theirs, part) for part in parts) == pytest.approx(expected)


def test_distance_is_the_integral_of_the_absolute_difference() -> None:
    a, b = curve(0, 1), curve(1, 1)
    fine = torch.linspace(0, 3, 200_001)[:-1].tolist()
    steps = torch.tensor(fine[::100])
    error = sum(abs(a.at(epsilon) - b.at(epsilon)) for epsilon in steps.tolist()) * 3 / 2000
    assert a.distance(b) == pytest.approx(error, rel=0.02)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.integers(100, 199), st.integers(200, 299), st.sampled_from([0, 1]))
def test_distance_is_a_metric(i: int, j: int, k: int, dimension: int) -> None:
    a, b, c = curve(i, dimension), curve(j, dimension), curve(k, dimension)
    assert a.distance(a) == 0
    assert a.distance(b) == pytest.approx(b.distance(a))
    assert a.distance(b) > 0
    assert a.distance(c) <= a.distance(b) + b.distance(c) + 1e-9


def test_relative_distance_to_nothing_is_infinite_and_of_nothing_to_nothing_zero() -> None:
    line = betti_curve(torch.arange(9.0)[:, None], 1, scales=GRID)
    ring = betti_curve(torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]]), 1, scales=GRID)
    assert line.area() == 0
    assert line.relative(line) == 0
    assert line.relative(ring) == float("inf")
    assert ring.relative(line) == 1


def test_identical_points_are_one_component_at_every_scale() -> None:
    found = betti_curve(torch.ones(5, 2))
    assert (found.values == 1).all()
    assert found.relative(found) == 0


def test_curves_on_different_scales_or_of_different_dimensions_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same scales"):
        curve(0).distance(betti_curve(draw(30, 3)))
    with pytest.raises(ValueError, match="H0 up to 3 at 40 scales and H1"):
        curve(0).distance(curve(0, 1))


def test_bands_hold_the_curve_and_shrink_with_more_points() -> None:
    widths = []
    for points in (50, 800):
        draws = subsamples(points, 20)
        grid = torch.tensor([0.0, 2 * points**-0.5], dtype=torch.float64)
        found = betti_curve(draw(points, 2), scales=grid, subsamples=draws)
        assert (found.low <= found.values).all()
        assert (found.values <= found.high).all()
        assert found.low[0] == found.high[0] == points
        widths.append(((found.high - found.low) / found.values)[1].item())
    assert 0 < widths[1] < widths[0]


def test_spread_is_half_the_area_of_the_band_over_that_of_the_curve() -> None:
    scales = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    line = torch.tensor([[0.0], [3.0], [9.0]], dtype=torch.float64)  # β0: 3 until 3, then 2
    bare = betti_curve(line, scales=scales)
    assert bare.area() == pytest.approx(3 * 3 + 2 * 1)
    assert bare.spread() == 0
    banded = replace(bare, low=bare.values - 1, high=bare.values + torch.tensor([1, 1, 3]))
    assert banded.spread() == pytest.approx((2 * 1 + (2 + 4) / 2 * 2) / 2 / 11)


def test_bands_cover_about_the_spread_of_fresh_samples() -> None:
    """The standard deviation of β0 over fresh clouds against six bands' mean width."""
    grid = torch.tensor([0.15], dtype=torch.float64)
    fresh = [betti_curve(draw(200, 2, seed=k), scales=grid) for k in range(40)]
    spread = torch.tensor([float(each.values) for each in fresh]).std().item()
    bands = [
        betti_curve(draw(200, 2, seed=k), scales=grid, subsamples=subsamples(200, 25))
        for k in range(6)
    ]
    width = sum((each.high - each.low).item() for each in bands) / 6
    assert width / (2 * 1.645) == pytest.approx(spread, rel=0.4)


@pytest.mark.parametrize("scales", [torch.tensor([0.2, 0.1]), torch.ones(2, 2), [0.1, 0.2], 0])
def test_scales_that_are_none_or_do_not_ascend_are_refused(scales: Any) -> None:
    with pytest.raises(ValueError, match="must be one row of numbers that ascend"):
        betti_curve(draw(9, 2), scales=scales)


def test_subsamples_have_no_duplicates_and_follow_the_generator() -> None:
    draws = subsamples(50, 6, torch.Generator().manual_seed(4))
    assert all(rows.unique().shape == (40,) for rows in draws)
    again = subsamples(50, 6, torch.Generator().manual_seed(4))
    assert all(torch.equal(a, b) for a, b in zip(draws, again, strict=True))
    assert not torch.equal(draws[0], draws[1])
