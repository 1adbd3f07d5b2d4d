"""Exponential forgetting: weighted moments against the weighted formulas they stand for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs

PAIRS = layer_pairs(("x", "y"), "all")


def draw(rows: int, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """Rows that drift and turn, so that every weight matters; and a class for each."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    drift = torch.linspace(0, 5, rows, dtype=torch.float64)[:, None]
    x = noise * (1 + drift) + drift
    labels = torch.randint(-1, 3, (rows,), generator=generator)
    return {"x": x, "y": (x[:, :3] * drift).sin() + 3}, labels


def stream(
    values: dict[str, Tensor], labels: Tensor | None, sizes: list[int], halflife: float | None
) -> LabelledMoments:
    moments = LabelledMoments(PAIRS, halflife)
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        batch = {name: value[part] for name, value in values.items()}
        moments.update(batch, None if labels is None else labels[part])
        start += size
    return moments


def weights(sizes: list[int], halflife: float) -> Tensor:
    """2 to the minus number of rows in later batches, over the halflife; batch by batch equal."""
    total = sum(sizes)
    later = [total - sum(sizes[: index + 1]) for index in range(len(sizes))]
    each = 2 ** (-torch.tensor(later, dtype=torch.float64) / halflife)
    return each.repeat_interleave(torch.tensor(sizes))


def assert_weighted(
    moments: Moments, values: dict[str, Tensor], weight: Tensor, tolerance: float = 1e-12
) -> None:
    """Count, means and covariances are those of the rows with these weights."""
    assert moments.count == pytest.approx(weight.sum().item(), rel=1e-12)
    share = weight / weight.sum()
    centred = {}
    for name, value in values.items():
        mean = share @ value
        torch.testing.assert_close(moments.mean(name), mean, rtol=tolerance, atol=tolerance)
        centred[name] = value - mean
    for a, b in moments.pairs:
        expected = (centred[a] * share[:, None]).T @ centred[b]
        error = (moments.cov(a, b) - expected).norm()
        assert error <= tolerance * expected.norm(), (a, b)


@pytest.mark.parametrize("halflife", [3.5, 100, 1e4])
def test_faded_moments_equal_the_weighted_ones_to_1e_12(halflife: float) -> None:
    sizes = [1, 250, 7, 300, 442]
    values, _ = draw(1000)
    moments = stream(values, None, sizes, halflife)
    assert_weighted(moments.total(), values, weights(sizes, halflife))


def test_classes_fade_with_every_row_that_comes_whatever_its_class() -> None:
    sizes, halflife = [200, 300, 100, 400], 150.0
    values, labels = draw(1000)
    moments, weight = stream(values, labels, sizes, halflife), weights([200, 300, 100, 400], 150.0)
    assert moments.classes == (0, 1, 2)
    assert_weighted(moments.total(), values, weight)
    for label, own in {-1: moments.unlabelled, **moments.by_class}.items():
        rows = labels == label
        assert_weighted(own, {n: v[rows] for n, v in values.items()}, weight[rows])
    kept = labels != 1
    assert_weighted(
        moments.without([1]), {n: v[kept] for n, v in values.items()}, weight[kept], 1e-11
    )


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.floats(0.5, 1e3),
    st.integers(0, 100),
)
def test_splitting_a_batch_changes_the_weights_of_its_rows_and_nothing_else(
    sizes: list[int], halflife: float, seed: int
) -> None:
    values, _ = draw(sum(sizes), seed)
    whole = stream(values, None, [sum(sizes)], halflife).total()
    assert_weighted(whole, values, torch.ones(sum(sizes), dtype=torch.float64), 1e-10)
    split = stream(values, None, sizes, halflife).total()
    assert_weighted(split, values, weights(sizes, halflife), 1e-10)


def test_a_halflife_of_none_weighs_all_rows_alike_and_counts_whole_rows() -> None:
    values, labels = draw(500)
    sizes = [100, 400]
    moments = stream(values, labels, sizes, None)
    assert isinstance(moments.count, int)
    assert moments.count == 500
    assert_weighted(moments.total(), values, torch.ones(500, dtype=torch.float64))


def test_the_weights_of_a_long_stream_sum_to_the_halflife_over_log_2() -> None:
    values, _ = draw(10)
    moments = LabelledMoments(PAIRS, 200)
    for _ in range(500):
        moments.update(values)
    # Rows of one batch weigh the same, which is half a batch more.
    assert moments.count == pytest.approx(200 / torch.tensor(2.0).log().item() + 5, rel=1e-3)


def test_affine_images_and_pairs_of_faded_moments_are_those_of_the_images() -> None:
    sizes, halflife = [30, 60, 10], 25.0
    values, labels = draw(100)
    moments, weight = stream(values, labels, sizes, halflife), weights(sizes, halflife)
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    bias = torch.ones(2, dtype=torch.float64)
    still = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    image = moments.affine({"x": (matrix, bias), "y": still})
    expected = {"x": values["x"] @ matrix.T + bias, "y": values["y"]}
    assert_weighted(image.total(), expected, weight)
    pair = moments.between("x", "y")
    assert_weighted(pair.total(), {"start": values["x"], "end": values["y"]}, weight)


def test_merged_streams_weigh_their_rows_as_each_of_them_did() -> None:
    values, labels = draw(600)
    first = {name: value[:200] for name, value in values.items()}
    second = {name: value[200:] for name, value in values.items()}
    merged = stream(first, labels[:200], [50, 150], 80.0).merge(
        stream(second, labels[200:], [100, 300], 80.0)
    )
    weight = torch.cat([weights([50, 150], 80.0), weights([100, 300], 80.0)])
    assert_weighted(merged.total(), values, weight)


@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
def test_rows_with_weights_of_their_own_give_the_weighted_moments(precision: torch.dtype) -> None:
    values, _ = draw(400)
    weight = torch.rand(400, generator=torch.Generator().manual_seed(1)).double() + 0.01
    moments = Moments(PAIRS, precision=precision)
    for part in (slice(0, 150), slice(150, 400)):
        moments.update({name: value[part] for name, value in values.items()}, weight[part])
    assert_weighted(moments, values, weight, 1e-12 if precision == torch.float64 else 1e-5)


def test_a_class_that_has_not_come_for_long_is_no_class_any_more_and_the_total_stays_exact() -> (
    None
):
    values, labels = draw(1000)
    labels = torch.where(torch.arange(1000) < 100, labels, 0)
    sizes = [100, *[50] * 18]
    moments = stream(values, labels, sizes, 40.0)
    assert moments.classes == (0,)
    assert_weighted(moments.total(), values, weights(sizes, 40.0))
    sooner = stream(values, labels, sizes[:5], 40.0)
    assert sooner.classes == (0, 1, 2), "five halflives are not long"


def test_a_batch_far_longer_than_the_halflife_leaves_nothing_of_the_past_and_no_nan() -> None:
    values, labels = draw(4000)
    moments = stream(values, labels, [1000, 3000], 0.5)
    last = {name: value[1000:] for name, value in values.items()}
    assert_weighted(moments.total(), last, torch.ones(3000, dtype=torch.float64))


@pytest.mark.parametrize("halflife", [None, 70.0])
def test_files_keep_fractional_counts(halflife: float | None) -> None:
    values, labels = draw(300)
    moments = stream(values, labels, [100, 200], halflife)
    again = LabelledMoments(PAIRS).load(moments.tensors())
    assert again.count == moments.count
    assert type(again.count) is type(moments.count)
    torch.testing.assert_close(again.total().cov("x", "y"), moments.total().cov("x", "y"))


@pytest.mark.parametrize("halflife", [0, -3, float("nan"), float("inf")])
def test_a_halflife_that_is_not_positive_is_refused(halflife: float) -> None:
    with pytest.raises(ValueError, match="positive number of rows"):
        LabelledMoments(PAIRS, halflife)


@pytest.mark.parametrize("halflife", [True, "5", torch.tensor(3.0)])
def test_a_halflife_that_is_no_number_is_refused(halflife: object) -> None:
    with pytest.raises(TypeError, match="a number of rows"):
        LabelledMoments(PAIRS, halflife)  # type: ignore[arg-type]


def state(moments: LabelledMoments) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in moments.tensors().items()}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=2, max_size=5),
    st.integers(0, 4),
    st.sampled_from([None, 0.5, 30.0]),
    st.booleans(),
)
def test_saved_moments_go_on_bit_by_bit(
    sizes: list[int], stop: int, halflife: float | None, labelled: bool
) -> None:
    """Also where all has faded to nothing, for then the means still enter the arithmetic."""
    values, labels = draw(sum(sizes))
    parts = {name: torch.split(value, sizes) for name, value in values.items()}
    classes = torch.split(labels, sizes)
    moments = LabelledMoments(PAIRS, halflife)
    for number in range(len(sizes)):
        if number == stop:
            moments = LabelledMoments(PAIRS, halflife).load(moments.tensors())
        batch = {name: part[number] for name, part in parts.items()}
        moments.update(batch, classes[number] if labelled else None)
    whole = stream(values, labels if labelled else None, sizes, halflife)
    assert moments.tensors().keys() == whole.tensors().keys()
    assert all(torch.equal(moments.tensors()[name], t) for name, t in whole.tensors().items())


def test_loaded_moments_share_no_memory_with_what_they_were_loaded_from() -> None:
    values, labels = draw(60)
    saved = state(moments := stream(values, labels, [60], None))
    tensors = moments.tensors()
    LabelledMoments(PAIRS).load(tensors).update(values, labels)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in saved.items())


def test_moments_of_other_pairs_are_not_loaded() -> None:
    values, labels = draw(60)
    moments = stream(values, labels, [60], None)
    before = state(moments)
    other = LabelledMoments(layer_pairs(("x", "y", "x2"), "all"))
    other.update({**values, "x2": values["x"]}, labels)
    with pytest.raises(ValueError, match="cannot be loaded"):
        moments.load(other.tensors())
    assert all(torch.equal(before[name], tensor) for name, tensor in moments.tensors().items())


def test_moments_that_do_not_fit_are_not_merged_and_nothing_changes() -> None:
    """The width differs in a class that only one of them has: the other classes must not move."""
    values, labels = draw(60)
    moments = stream(values, labels.clamp(max=0), [60], 30.0)
    before = state(moments)
    wide = LabelledMoments(PAIRS, 30.0).update({"x": values["x"], "y": values["x"]}, labels * 0 + 7)
    for other in (moments, wide, stream(values, labels, [60], 31.0)):
        with pytest.raises(ValueError, match=r"cannot merge|features in earlier"):
            moments.merge(other)
    assert state(moments).keys() == before.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in moments.tensors().items())


def test_merged_moments_with_a_halflife_weigh_each_row_by_its_own_stream() -> None:
    values, labels = draw(90)
    parts = [{name: value[s] for name, value in values.items()} for s in (slice(50), slice(50, 90))]
    one = stream(parts[0], labels[:50], [30, 20], 25.0)
    one.merge(stream(parts[1], labels[50:], [40], 25.0))
    weight = torch.cat([weights([30, 20], 25.0), weights([40], 25.0)])
    assert_weighted(one.total(), values, weight)
