"""Coordinates of layers, against eigenvectors and rotations known beforehand."""

import math

import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize
from torch import Tensor

from torchkoopman.koopman import axes as axes_module
from torchkoopman.koopman.coordinates import CoordinateOptions, Coordinates, Frames
from torchkoopman.koopman.principal import layer_coordinates, procrustes, truncation_rank
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs


def rows_of(rank: int, features: int, rows: int = 400, seed: int = 0) -> Tensor:
    """Rows of known rank with uneven variances and a mean far from zero."""
    generator = torch.Generator().manual_seed(seed)
    amplitudes = torch.randn(rows, rank, generator=generator, dtype=torch.float64)
    axes = torch.linalg.qr(torch.randn(features, rank, generator=generator, dtype=torch.float64)).Q
    return amplitudes * 0.5 ** torch.arange(rank) @ axes.T + 7


def rotation(size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q


def moments_of(**layers: Tensor) -> Moments:
    return Moments(layer_pairs(tuple(layers), "all")).update(layers)


def one(rows: Tensor, **options: float) -> Coordinates:
    return layer_coordinates(moments_of(x=rows), ["x"], CoordinateOptions(**options))[0]


@given(st.integers(1, 6), st.floats(0, 1), st.integers(0, 50))
@settings(deadline=None, max_examples=30)
def test_coordinates_are_centred_with_mean_square_one(
    rank: int, whitening: float, seed: int
) -> None:
    rows = rows_of(rank, 6, seed=seed)
    values = one(rows, whitening=whitening)(rows)
    assert values.shape == (400, rank)
    assert values.mean(0).abs().max() < 1e-10
    assert values.square().mean().item() == pytest.approx(1, abs=1e-10)


def test_full_whitening_makes_the_covariance_the_identity() -> None:
    rows = rows_of(5, 5)
    covariance = one(rows, whitening=0.0)(rows).T.cov(correction=0)
    torch.testing.assert_close(covariance, torch.eye(5).double(), rtol=0, atol=1e-10)


def test_without_whitening_distances_are_kept_up_to_one_scale() -> None:
    rows = rows_of(5, 5)
    ratio = torch.pdist(one(rows)(rows)) / torch.pdist(rows)
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-9, atol=0)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_partial_whitening_leaves_the_variances_of_its_formula(alpha: float) -> None:
    """D = α + (1-α) Λ^(-1/2), Λ relative to its mean, one variance after the other."""
    rows = rows_of(4, 4)
    variances = torch.linalg.eigvalsh(rows.T.cov(correction=0)).flip(0).tolist()
    mean = sum(variances) / 4
    spread = [(alpha + (1 - alpha) / math.sqrt(v / mean)) ** 2 * v for v in variances]
    expected = [value / (sum(spread) / 4) for value in spread]
    found = one(rows, whitening=alpha)(rows).var(0, correction=0)
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_the_inverse_is_exact_on_the_kept_subspace(whitening: float) -> None:
    rows = rows_of(3, 8)
    frame = one(rows, whitening=whitening)
    torch.testing.assert_close(frame.inverse(frame(rows)), rows, rtol=0, atol=1e-10)
    identity = frame.weight @ frame.inverse_weight
    torch.testing.assert_close(identity, torch.eye(3).double(), rtol=0, atol=1e-10)


def test_the_inverse_after_a_truncation_is_the_best_approximation_of_its_rank() -> None:
    """Eckart–Young: what is left is the energy of the singular values left out."""
    rows = rows_of(5, 8)
    frame = one(rows, rank=2, whitening=0.0)
    left = (frame.inverse(frame(rows)) - rows).square().sum().item()
    singular = torch.linalg.svdvals(rows - rows.mean(0))
    assert left == pytest.approx(singular[2:].square().sum().item(), rel=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.floats(-4, 4), st.floats(0, 1))
def test_coordinates_do_not_depend_on_the_scale_of_a_layer(exponent: float, alpha: float) -> None:
    rows = rows_of(4, 6)
    scale = 10**exponent
    near, far = one(rows, whitening=alpha)(rows), one(scale * rows, whitening=alpha)(scale * rows)
    signs = (near * far).sum(0).sign()
    torch.testing.assert_close(far * signs, near, rtol=0, atol=1e-6)


def test_coordinates_do_not_depend_on_the_number_of_rows() -> None:
    rows = rows_of(4, 6)
    twice = one(rows.repeat(3, 1))(rows)
    once = one(rows)(rows)
    torch.testing.assert_close(twice * (twice * once).sum(0).sign(), once, rtol=0, atol=1e-9)


def test_the_bias_is_what_the_mean_subtracts() -> None:
    rows = rows_of(4, 6)
    frame = one(rows)
    torch.testing.assert_close(rows @ frame.weight.T + frame.bias, frame(rows))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 8), st.integers(0, 1000))
def test_procrustes_finds_the_rotation_that_was_made(size: int, seed: int) -> None:
    made = rotation(size, seed)
    points = rows_of(size, size, seed=seed)
    points = points - points.mean(0)
    torch.testing.assert_close(procrustes((points @ made.T).T @ points), made, rtol=0, atol=1e-9)


def test_no_rotation_is_nearer_than_that_of_procrustes() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 50, 4, generator=generator, dtype=torch.float64)
    best = (a @ procrustes(b.T @ a).T - b).square().sum()
    for seed in range(50):
        assert best <= (a @ rotation(4, seed).T - b).square().sum()


def test_layers_that_are_rotations_of_each_other_get_equal_coordinates() -> None:
    rows, turn = rows_of(4, 4), rotation(4)
    layers = {"x": 3 * rows @ turn.T + 1, "y": rows}
    options = CoordinateOptions(frames="aligned")
    frames = layer_coordinates(moments_of(**layers), list(layers), options)
    torch.testing.assert_close(frames[0](layers["x"]), frames[1](layers["y"]), rtol=0, atol=1e-9)


def test_aligned_coordinates_are_as_near_as_rotations_can_make_them() -> None:
    x = rows_of(4, 6)
    layers = {"x": x, "y": x.sin() + 0.2 * x, "z": x.cos() + 0.5 * x}
    moments = moments_of(**layers)
    aligned = layer_coordinates(moments, list(layers), CoordinateOptions(rank=4, frames="aligned"))
    last = aligned[-1](layers["z"])
    for frame, layer in zip(aligned[:-1], ("x", "y"), strict=True):
        best = (frame(layers[layer]) - last).square().sum()
        for seed in range(20):
            assert best <= (frame.rotated(rotation(4, seed))(layers[layer]) - last).square().sum()


def test_shared_coordinates_keep_a_rotation_between_layers_a_rotation() -> None:
    rows = rows_of(4, 4) - 7
    turn = rotation(4)
    layers = {"x": rows, "y": rows @ turn.T}
    options = CoordinateOptions(frames="shared")
    first, last = layer_coordinates(moments_of(**layers), list(layers), options)
    torch.testing.assert_close(first.weight, last.weight, rtol=0, atol=0)
    assert first.weight.data_ptr() != last.weight.data_ptr()
    start = first(layers["x"]) - first(layers["x"]).mean(0)
    end = last(layers["y"]) - last(layers["y"]).mean(0)
    step = torch.linalg.lstsq(start, end, driver="gels").solution.T
    torch.testing.assert_close(step @ step.T, torch.eye(4).double(), rtol=0, atol=1e-9)


def test_shared_coordinates_are_those_of_all_layers_rows_together() -> None:
    layers = {"x": rows_of(4, 6), "y": rows_of(4, 6, seed=1).sin()}
    shared = layer_coordinates(
        moments_of(**layers),
        list(layers),
        CoordinateOptions(frames="shared", rank=3, whitening=0.2),
    )[0]
    rows = torch.cat(list(layers.values()))
    together = one(rows, rank=3, whitening=0.2)
    signs = (shared(rows) * together(rows)).sum(0).sign()
    torch.testing.assert_close(shared(rows), together(rows) * signs, rtol=0, atol=1e-9)


def test_rank_minus_one_keeps_all_that_varies() -> None:
    assert one(rows_of(3, 9), rank=-1).size == 3


def test_rank_zero_finds_the_rank_under_noise() -> None:
    """Gavish–Donoho on a matrix of rank 3 with noise whose deviation it is not told."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2000, 30, generator=generator, dtype=torch.float64)
    for level in (0.001, 0.02):
        rows = rows_of(3, 30, rows=2000) + level * noise
        assert one(rows, rank=0).size == 3


def test_rank_zero_takes_the_median_of_an_even_number_in_the_middle() -> None:
    """As PyDMD does: the threshold is 1.43 · 3.25 here, and not 1.43 · 2."""
    singular = torch.tensor([5.0, 4.5, 2.0, 1.9], dtype=torch.float64)
    assert truncation_rank(singular.square(), 0, 4000) == 1


def test_rank_zero_keeps_no_constant_direction() -> None:
    """With most units dead the median singular value is zero, and so would be the threshold."""
    generator = torch.Generator().manual_seed(0)
    dead = torch.randn(50, 10, generator=generator, dtype=torch.float64)
    dead[:, 2:] = 1e-9 * dead[:, :1]
    assert one(dead, rank=0, whitening=0.0).size <= 2
    assert truncation_rank(torch.tensor([4.0, 1.0, 1e-16, 1e-17, 0.0, 0.0, 0.0]), 0, 100) == 2


def optimal_threshold(beta: float) -> float:
    """λ(β) over the root of Marchenko–Pastur's median (Gavish & Donoho 2014, section III.E)."""
    low, high = (1 - beta**0.5) ** 2, (1 + beta**0.5) ** 2

    def density(t: float) -> float:
        return math.sqrt(max((high - t) * (t - low), 0)) / (2 * math.pi * beta * t)

    def beyond_half(t: float) -> float:
        return integrate.quad(density, low, t)[0] - 0.5

    median = optimize.brentq(beyond_half, low + 1e-9, high)
    factor = 8 * beta / ((beta + 1) + math.sqrt(beta**2 + 14 * beta + 1))
    return math.sqrt(2 * (beta + 1) + factor) / math.sqrt(median)


@pytest.mark.parametrize("rows", [100, 200, 400, 2000])
def test_rank_zero_is_the_optimal_threshold_for_unknown_noise(rows: int) -> None:
    """Within the 0.02 to which the cubic of the paper approximates it."""
    threshold = optimal_threshold(100 / rows)
    for off, kept in ((-0.03, 1), (0.03, 2)):
        singular = torch.ones(100)
        singular[0], singular[1] = 10, threshold + off
        assert truncation_rank(singular.square(), 0, rows) == kept


@pytest.mark.parametrize(("share", "kept"), [(0.5, 1), (0.79, 1), (0.81, 2), (0.94, 2), (0.96, 3)])
def test_a_fraction_keeps_the_fewest_directions_of_that_energy(share: float, kept: int) -> None:
    variances = torch.tensor([16.0, 3.0, 0.8, 0.2])  # 80, 95, 99, 100 % of 20
    assert truncation_rank(variances, share, rows=100) == kept


def test_a_number_keeps_so_many_directions_if_there_are() -> None:
    assert one(rows_of(4, 6), rank=2).size == 2
    assert one(rows_of(4, 6), rank=50).size == 4


def test_all_layers_get_the_rank_of_the_neediest_as_far_as_each_has_it() -> None:
    even = rows_of(4, 6) @ rotation(6)
    steep = rows_of(1, 5) + 1e-3 * (rows_of(3, 5, seed=3) - 7)
    layers = {"x": steep, "y": even}
    sizes = [
        frame.size
        for frame in layer_coordinates(
            moments_of(**layers), list(layers), CoordinateOptions(rank=0.99)
        )
    ]
    alone = truncation_rank(torch.linalg.eigvalsh(even.T.cov()).flip(0), 0.99, 400)
    assert sizes == [min(alone, 4)] * 2
    assert truncation_rank(torch.linalg.eigvalsh(steep.T.cov()).flip(0), 0.99, 400) < sizes[0]


def test_a_constant_layer_is_refused_by_name() -> None:
    layers = {"x": torch.ones(10, 3), "y": rows_of(3, 3, rows=10)}
    with pytest.raises(ValueError, match="layer 'x' is constant"):
        layer_coordinates(moments_of(**layers), list(layers), CoordinateOptions())


def test_layers_of_different_widths_share_no_frame() -> None:
    layers = {"x": rows_of(3, 3), "y": rows_of(3, 4)}
    with pytest.raises(ValueError, match=r"one width; they have \{'x': 3, 'y': 4\}"):
        layer_coordinates(moments_of(**layers), list(layers), CoordinateOptions(frames="shared"))


@pytest.mark.parametrize("rank", [-2, -0.5, 2.5, math.nan, math.inf])
def test_a_rank_without_a_meaning_is_refused(rank: float) -> None:
    with pytest.raises(ValueError, match=f"rank={rank} must be"):
        CoordinateOptions(rank=rank)


@pytest.mark.parametrize("whitening", [-0.1, 1.1, math.nan])
def test_a_whitening_outside_zero_and_one_is_refused(whitening: float) -> None:
    with pytest.raises(ValueError, match=f"whitening={whitening} must lie"):
        CoordinateOptions(whitening=whitening)


def test_rotated_coordinates_are_rotated_and_come_back() -> None:
    rows, turn = rows_of(4, 6), rotation(4)
    frame = one(rows).after(torch.eye(6).double(), torch.ones(6).double())
    turned = frame.rotated(turn)
    torch.testing.assert_close(turned(rows), frame(rows) @ turn.T)
    torch.testing.assert_close(turned.inverse(turned(rows)), frame.inverse(frame(rows)))


def test_after_changes_the_way_back_alone() -> None:
    rows = rows_of(4, 6)
    frame = one(rows)
    weight, bias = rows_of(6, 6)[:6], rows_of(6, 6)[6]
    edited = frame.after(weight, bias)
    torch.testing.assert_close(edited(rows), frame(rows), rtol=0, atol=0)
    torch.testing.assert_close(edited.inverse(edited(rows)), rows @ weight.T + bias)
    twice = edited.after(weight, bias)
    expected = (rows @ weight.T + bias) @ weight.T + bias
    torch.testing.assert_close(twice.inverse(twice(rows)), expected)


def test_coordinates_load_into_zeros_of_their_shape() -> None:
    frame = one(rows_of(4, 6)).float()
    loaded = Coordinates.zeros(frame.size, frame.features)
    loaded.load_state_dict(frame.state_dict())
    rows = rows_of(4, 6).float()
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in frame.state_dict().items())
    torch.testing.assert_close(loaded.inverse(loaded(rows)), frame.inverse(frame(rows)))


@pytest.mark.parametrize("frames", ["shared", "aligned"])
@pytest.mark.parametrize("varying", [12, 64, 520])
def test_a_few_axes_of_many_are_those_found_among_all(
    frames: Frames, varying: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where fewer directions vary than are asked for, and where all vary alike."""
    generator = torch.Generator().manual_seed(varying)
    spread = torch.linspace(2, 1, varying, dtype=torch.float64)
    axes = torch.linalg.qr(torch.randn(520, varying, generator=generator, dtype=torch.float64)).Q
    drawn = torch.randn(900, varying, generator=generator, dtype=torch.float64)
    x = drawn * spread @ axes.T + 7
    moments = moments_of(x=x, y=x.tanh())
    options = CoordinateOptions(20, frames=frames, whitening=0.5)
    calls = []
    alone = scipy.linalg.eigh
    monkeypatch.setattr(axes_module, "eigh", lambda *a, **k: (calls.append(k), alone(*a, **k))[1])
    some = layer_coordinates(moments, ["x", "y"], options)
    assert len(calls) == (1 if frames == "shared" else 2)
    monkeypatch.setattr(axes_module, "_MANY", 10_000)
    among_all = layer_coordinates(moments, ["x", "y"], options)
    assert some[0].size == among_all[0].size
    for found, expected in zip(some, among_all, strict=True):
        for part in ("weight", "inverse_weight"):
            one, other = getattr(found, part), getattr(expected, part)
            one, other = (m.T if part == "weight" else m for m in (one, other))
            assert (one @ one.T - other @ other.T).norm() < 1e-9 * (other @ other.T).norm()
        assert found.weight.dtype == torch.float64
