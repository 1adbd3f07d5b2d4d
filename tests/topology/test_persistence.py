"""Persistence: components against scipy's spanning trees, loops of shapes whose loops are known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

from tests.systems import draw
from torchkoopman.topology import distances, persistence
from torchkoopman.topology.distances import scale
from torchkoopman.topology.persistence import deaths, diagram, memory_needed


def circle(points: int = 40, centre: float = 0.0) -> Tensor:
    angle = torch.arange(points, dtype=torch.float64) * (2 * math.pi / points)
    return torch.stack([angle.cos() + centre, angle.sin()], 1)


def alive(pairs: Tensor, epsilon: float) -> int:
    return int(((pairs[:, 0] <= epsilon) & (epsilon < pairs[:, 1])).sum())


def rotation(features: int, seed: int = 3) -> Tensor:
    return torch.linalg.qr(draw(features, features, seed=seed)).Q


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 7 rows, so that a small cloud has many of them and the last is short."""
    monkeypatch.setattr(distances, "BLOCK", 7)
    monkeypatch.setattr(persistence, "BLOCK", 7)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 60), st.integers(1, 5), st.integers(0, 1000), st.booleans())
def test_deaths_are_the_edges_of_scipys_minimum_spanning_tree(
    points: int, features: int, seed: int, ties: bool
) -> None:
    cloud = draw(points, features, seed=seed)
    cloud = (2 * cloud).round() if ties else cloud
    cloud += 1e-3 * draw(1, features, seed=seed + 1)
    # scipy reads a zero as no edge, so duplicates are compared as distances plus one.
    tree = minimum_spanning_tree(squareform(pdist(cloud.numpy()) + 1))
    expected = np.sort(tree.data) - 1
    np.testing.assert_allclose(deaths(cloud).numpy(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("points", [6, 7, 8, 30])
def test_blocks_do_not_change_distances_trees_or_scales(points: int, exact: bool) -> None:
    cloud = draw(points, 3)
    whole = squareform(pdist(cloud.numpy()))
    found = distances.squared_distances(cloud, 4.0, exact).sqrt().numpy() * 4
    np.testing.assert_allclose(found, whole, rtol=1e-6)
    tree = np.sort(minimum_spanning_tree(whole).data)
    np.testing.assert_allclose(deaths(cloud).numpy(), tree, rtol=1e-12)
    np.fill_diagonal(whole, np.inf)
    nearest = distances.neighbour_distances(cloud).numpy()
    np.testing.assert_allclose(nearest, whole.min(1), rtol=1e-12)


def test_short_edges_far_from_the_origin_keep_their_digits() -> None:
    """In float32 the squares of these distances would drown in those of the coordinates."""
    line = torch.cumsum(torch.arange(1, 30, dtype=torch.float64), 0)[:, None] * 1e-6
    cloud = torch.cat([line, line + 3.0]) * torch.ones(1, 4, dtype=torch.float64) + 1000
    gaps = 2 * torch.arange(2, 30, dtype=torch.float64) * 1e-6
    expected = torch.cat([gaps, gaps, 2 * (3 + line[:1] - line[-1:])[0]]).sort().values
    torch.testing.assert_close(deaths(cloud), expected, rtol=1e-6, atol=0)


def plain(cloud: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Merging scales and distances to the nearest neighbour, from differences."""
    found = pdist(cloud.double().numpy())
    whole, least = squareform(found), found.min()  # below 1e-8 scipy sees no edge
    tree = np.sort(minimum_spanning_tree(whole / least).data) * least
    np.fill_diagonal(whole, np.inf)
    return tree, whole.min(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e19, 1e30])
def test_clouds_whose_squared_distances_no_float32_holds_are_as_any_other(
    size: float, dtype: torch.dtype
) -> None:
    cloud = (draw(50, 3) * size).to(dtype)
    tree, nearest = plain(cloud)
    np.testing.assert_allclose(deaths(cloud).numpy(), tree, rtol=1e-9)
    np.testing.assert_allclose(distances.neighbour_distances(cloud).numpy(), nearest, rtol=1e-9)
    loops = diagram((cloud.double() / size), 1)
    torch.testing.assert_close(diagram(cloud, 1), loops * size, rtol=1e-5, atol=0)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("far", [1e8, 1e10, 1e15])
@pytest.mark.parametrize("many", [1, 25])
def test_points_far_out_do_not_blur_the_others(many: int, far: float) -> None:
    """Of |a|² + |b|² - 2 a·b nothing but rounding is left there."""
    cloud = draw(50, 3)
    cloud[:many] += far
    tree, nearest = plain(cloud)
    np.testing.assert_allclose(deaths(cloud).numpy(), tree, rtol=1e-7)
    np.testing.assert_allclose(distances.neighbour_distances(cloud).numpy(), nearest, rtol=1e-7)
    ring = torch.cat([circle(30), draw(many, 2, seed=5) + far])
    assert diagram(ring, 1)[0].tolist() == pytest.approx(diagram(circle(30), 1)[0].tolist())


def test_duplicates_merge_at_zero() -> None:
    cloud = draw(20, 3).float().repeat(3, 1)
    found = deaths(cloud)
    assert (found[:40] == 0).all()
    assert (found[40:] > 0).all()
    torch.testing.assert_close(found[40:], deaths(cloud[:20]))
    assert scale(cloud) == 0.0


def test_one_point_is_one_component_that_never_dies() -> None:
    assert deaths(draw(1, 3)).shape == (0,)
    assert diagram(draw(1, 3)).tolist() == [[0.0, math.inf]]


@pytest.mark.parametrize("clusters", [1, 2, 5])
def test_separated_clusters_are_so_many_components(clusters: int) -> None:
    cloud = torch.cat([0.1 * draw(30, 4, seed=k) + 10 * k for k in range(clusters)])
    pairs = diagram(cloud)
    assert alive(pairs, 2.0) == clusters
    assert alive(pairs, 0.0) == len(cloud)
    assert alive(pairs, 1e6) == 1


def test_a_circle_has_one_loop_and_a_figure_eight_two() -> None:
    """A loop of 40 points fills when three of them, 13, 13 and 14 apart, can be joined."""
    pairs = diagram(circle(), 1)
    assert pairs.shape == (1, 2)
    assert pairs[0, 0].item() == pytest.approx(2 * math.sin(math.pi / 40), rel=1e-6)
    assert pairs[0, 1].item() == pytest.approx(2 * math.sin(14 * math.pi / 40), rel=1e-6)
    eight = diagram(torch.cat([circle(), circle(centre=2.0)[torch.arange(40) != 20]]), 1)
    assert [alive(eight, epsilon) for epsilon in (0.1, 0.3, 1.0, 3.0)] == [0, 2, 2, 0]


def test_a_sphere_has_a_void_and_no_loop() -> None:
    cloud = torch.nn.functional.normalize(draw(90, 3), dim=1)
    assert alive(diagram(cloud, 2), 1.2) == 1
    assert alive(diagram(cloud, 1), 1.2) == 0


def test_a_cloud_too_small_for_loops_has_none() -> None:
    assert diagram(draw(3, 2), 1).shape == (0, 2)


@pytest.mark.parametrize("dimension", [0, 1])
def test_isometries_leave_diagrams_unchanged_and_scaling_scales_them(dimension: int) -> None:
    cloud = draw(60, 4)
    pairs = diagram(cloud, dimension)
    assert len(pairs) > 5
    moved = diagram(cloud @ rotation(4) + 5, dimension)
    torch.testing.assert_close(moved, pairs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(diagram(3 * cloud, dimension), 3 * pairs, rtol=1e-5, atol=1e-6)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(diagram(cloud[order], dimension), pairs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_gives_the_diagram_of_the_same_numbers_in_float64(
    dtype: torch.dtype,
) -> None:
    cloud = draw(30, 3).to(dtype)
    torch.testing.assert_close(deaths(cloud), deaths(cloud.double()))


def test_the_scale_is_the_median_neighbour_distance_half_way_to_the_next() -> None:
    cloud = draw(41, 3)
    whole = squareform(pdist(cloud.numpy()))
    np.fill_diagonal(whole, np.inf)
    nearest = np.sort(whole.min(1))
    # Mutual neighbours have one distance.
    larger = nearest[nearest > nearest[20] * (1 + 1e-9)]
    assert scale(cloud) == pytest.approx((nearest[20] + larger[0]) / 2)
    assert scale(2 * cloud) == pytest.approx(2 * scale(cloud))


def test_clouds_that_could_take_too_much_memory_are_refused_before_allocation() -> None:
    huge = torch.zeros(1, 1).expand(10_000_000, 3)  # stored as a single number
    with pytest.raises(ValueError, match=r"H0 of 10000000 points .* Take \d+ points or fewer"):
        deaths(huge)
    with pytest.raises(ValueError, match=r"H1 of 10000000 points .* Take \d+ landmarks or fewer"):
        diagram(huge, 1)


@pytest.mark.parametrize("dimension", [0, 1, 2])
def test_the_advice_of_a_refusal_is_the_most_that_fits(dimension: int) -> None:
    budget = 50 * 2**20
    with pytest.raises(ValueError, match="or fewer") as refusal:
        persistence.require_memory(100_000, 20, dimension, budget)
    advised = int(str(refusal.value).split("Take ")[1].split()[0])
    assert memory_needed(advised, 20, dimension) <= budget
    assert memory_needed(advised + 1, 20, dimension) > budget
    persistence.require_memory(advised, 20, dimension, budget)


def test_what_is_no_cloud_is_refused() -> None:
    spoilt = draw(5, 2)
    spoilt[1, 0] = torch.nan
    with pytest.raises(ValueError, match="1 of 5 points are not finite"):
        deaths(spoilt)
    with pytest.raises(ValueError, match=r"\(points, features\).*\(5,\)"):
        deaths(draw(5))
    with pytest.raises(ValueError, match=r"the shape is \(0, 2\)"):
        deaths(draw(0, 2))
    with pytest.raises(TypeError, match="int64"):
        deaths(torch.arange(6).reshape(3, 2))
    with pytest.raises(ValueError, match="dimension=-1"):
        diagram(draw(5, 2), -1)
    with pytest.raises(ValueError, match="two points or more"):
        scale(draw(1, 2))


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_merging_scales_of_more_points_than_a_block_are_those_of_a_plain_prim(
    offset: float,
) -> None:
    """Across blocks, far from the origin, with duplicates, and asked a second time."""
    cloud = torch.randn(1500, 3, generator=torch.Generator().manual_seed(0)) + offset
    cloud[1400] = cloud[3]
    x = cloud.double()
    distances = (x[:, None] - x).norm(dim=2)
    closest, left, expected = distances[0].clone(), set(range(1, 1500)), []
    while left:
        nearest = min(left, key=closest.tolist().__getitem__)
        expected.append(closest[nearest].item())
        left.remove(nearest)
        closest = torch.minimum(closest, distances[nearest])
    wanted = torch.tensor(expected, dtype=torch.float64).sort().values
    for _ in range(2):
        torch.testing.assert_close(deaths(cloud), wanted, rtol=1e-6, atol=1e-12)
