"""Streaming moments against the batch formulas they stand for."""

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torchkoopman.observe import products
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs

PAIRS = layer_pairs(("x", "y"), "all")


def draw(rows: int, seed: int = 0, scale: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 5, generator=generator, dtype=torch.float64) * scale + 3
    return {"x": x, "y": x[:, :3].sin() + 10}


def stream(values: dict[str, Tensor], sizes: list[int]) -> Moments:
    moments = Moments(PAIRS)
    for part in zip(*(value.split(sizes) for value in values.values()), strict=True):
        moments.update(dict(zip(values, part, strict=True)))
    return moments


def assert_equal(moments: Moments, other: Moments, tolerance: float = 1e-12) -> None:
    assert moments.count == other.count
    for name in moments.names:
        torch.testing.assert_close(moments.mean(name), other.mean(name), rtol=tolerance, atol=0)
    for pair in moments.pairs:
        scale = other.cov(*pair).abs().max().item()
        difference = (moments.cov(*pair) - other.cov(*pair)).abs().max().item()
        assert difference <= tolerance * scale, pair


def test_streamed_moments_equal_batch_moments_to_1e_12() -> None:
    values = draw(1000)
    moments = stream(values, [1, 7, 192, 800])
    joint = torch.cat([values["x"], values["y"]], 1)
    expected = joint.T.cov(correction=0)
    assert moments.count == 1000
    torch.testing.assert_close(moments.mean("x"), values["x"].mean(0), rtol=1e-12, atol=0)
    for pair, block in {("x", "x"): expected[:5, :5], ("x", "y"): expected[:5, 5:]}.items():
        assert (moments.cov(*pair) - block).norm() <= 1e-12 * block.norm()
    torch.testing.assert_close(moments.cov("y", "x"), moments.cov("x", "y").T)
    second = values["x"].T @ values["y"] / 1000
    torch.testing.assert_close(moments.second("x", "y"), second, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 40), min_size=2, max_size=8), st.integers(0, 100))
def test_however_rows_are_split_and_merged_the_moments_are_the_same(
    sizes: list[int], seed: int
) -> None:
    values = draw(sum(sizes) + 2, seed)
    sizes = [*sizes, 2]
    whole = stream(values, [sum(sizes)])
    assert_equal(stream(values, sizes), whole, 1e-11)
    half = len(sizes) // 2
    cut = sum(sizes[:half])
    first = stream({name: value[:cut] for name, value in values.items()}, sizes[:half])
    second = stream({name: value[cut:] for name, value in values.items()}, sizes[half:])
    assert_equal(first.merge(second), whole, 1e-11)


def test_small_modes_survive_large_ones() -> None:
    """Amplitudes spanning 1e5 in float32 input, where float32 sums lose the small one."""
    values = draw(20_000)["x"].float()
    values[:, 0] *= 1e5
    moments = Moments([("x", "x")])
    for part in values.split(500):
        moments.update({"x": part})
    expected = values.double().T.cov(correction=0)
    torch.testing.assert_close(moments.cov("x", "x"), expected, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("width", [47, 48, 49, 191, 192, 193, 240, 300, 400])
@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
def test_symmetric_covariances_wider_than_a_block_are_whole(
    width: int, precision: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(2)
    x = draw(700)["x"] @ torch.randn(5, width, dtype=torch.float64, generator=generator)
    moments = Moments([("x", "x")], precision=precision)
    for part in x.split(150):
        moments.update({"x": part})
    cov = moments.cov("x", "x")
    exact = precision == torch.float64
    assert (cov - cov.T).abs().max() <= (1e-14 if exact else 1e-6) * cov.abs().max()
    expected = x.T.cov(correction=0)
    assert (cov - expected).norm() <= (1e-12 if exact else 1e-6) * expected.norm()


@pytest.mark.parametrize("width", [5, 100, 500])
def test_reading_moments_between_batches_changes_no_bit_of_them(width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    read, unread, other = (Moments([("x", "x")]) for _ in range(3))
    other.update({"x": torch.randn(30, width, generator=generator)})
    for batch in torch.randn(6, 40, width, generator=generator):
        for moments in (read, unread):
            moments.update({"x": batch}).fade(0.9).merge(other)
            moments.update({"x": batch})
        first = read.cov("x", "x")
        torch.testing.assert_close(first, first.T, rtol=1e-12, atol=1e-15)
    assert torch.equal(read.cov("x", "x"), unread.cov("x", "x"))
    again = Moments([("x", "x")]).load(unread.tensors())
    assert torch.equal(again.cov("x", "x"), unread.cov("x", "x"))


@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
def test_variables_that_take_turns_in_the_same_memory_have_the_moments_they_have_alone(
    precision: torch.dtype,
) -> None:
    """Of one shape and of another, of other dtypes, with weights, alone and beside pairs."""
    generator = torch.Generator().manual_seed(3)
    widths = {"a": 5, "b": 5, "c": 7, "d": 5, "e": 5, "f": 5}
    values = {
        name: torch.randn(60, width, generator=generator, dtype=torch.float64) + 2
        for name, width in widths.items()
    }
    values["b"] = values["b"].float()
    pairs = [*((name, name) for name in widths), ("a", "d")]
    weights = torch.rand(60, generator=generator) + 0.1
    together = Moments(pairs, precision=precision)
    alone = {pair: Moments([pair], precision=precision) for pair in pairs}
    for part in (slice(0, 20), slice(20, 60)):
        batch = {name: value[part] for name, value in values.items()}
        together.update(batch, weights[part])
        for moments in alone.values():
            moments.update(batch, weights[part])
    for pair, moments in alone.items():
        assert torch.equal(together.cov(*pair), moments.cov(*pair)), pair
        assert torch.equal(together.mean(pair[0]), moments.mean(pair[0]))


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("width", [128, 700])
def test_rows_taken_a_part_at_a_time_are_a_batch(width: int, weighed: bool) -> None:
    rows = 5001
    generator = torch.Generator().manual_seed(100)
    x, y = 5 + torch.randn(2, rows, width, generator=generator)
    values = {"x": x, "y": y + x}
    assert len(products.parts(values)) > 1
    weights = torch.rand(rows, generator=generator) + 0.1 if weighed else None
    moments = Moments([("x", "x"), ("x", "y"), ("y", "y")])
    moments.update(values, weights)
    share = torch.ones(rows) if weights is None else weights
    share = share.double() / share.double().sum()
    means = {name: share @ value.double() for name, value in values.items()}
    for a, b in moments.pairs:
        left, right = (values[name].double() - means[name] for name in (a, b))
        expected = (left * share[:, None]).T @ right
        torch.testing.assert_close(moments.cov(a, b), expected, rtol=0, atol=1e-12)
    total = rows if weights is None else weights.double().sum().item()
    assert moments.count == pytest.approx(total, rel=1e-14)


def test_a_batch_of_many_layers_is_centred_in_the_memory_of_a_part_of_one() -> None:
    """Where no pair is of two layers: a copy of each in float64 would triple what is held."""
    names = [str(layer) for layer in range(8)]
    values = {name: torch.randn(2**14, 128) for name in names}
    moments = Moments([(name, name) for name in names])
    made: list[int] = []

    class Counting(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and "empty" in func.__name__:
                made.append(result.nbytes)
            return result

    with Counting():
        moments.update(values)
    assert 2**10 * 128 * 8 <= sum(made) <= 1.2 * 2**10 * 128 * 8


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize(("rows", "width"), [(64, 200), (4096, 200), (1024, 6)])
def test_float32_products_err_by_at_most_1e_7_of_the_largest_variance(
    rows: int, width: int, offset: float
) -> None:
    """The claim behind ``precision=``: variances over eight decades along oblique directions."""
    generator = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    amplitudes = torch.logspace(0, -4, width)
    fast, exact = (Moments([("x", "x")], precision=p) for p in (torch.float32, torch.float64))
    for _ in range(4096 // rows):
        x = torch.randn(rows, width, generator=generator) * amplitudes @ basis.T + offset
        fast.update({"x": x})
        exact.update({"x": x})
    torch.testing.assert_close(fast.mean("x"), exact.mean("x"), rtol=1e-12, atol=0)
    truth = exact.cov("x", "x")
    error = torch.linalg.matrix_norm(fast.cov("x", "x") - truth, 2)
    assert 0 < error <= 1e-7 * torch.linalg.matrix_norm(truth, 2)


def test_float32_products_keep_features_of_any_scale() -> None:
    x = torch.randn(2000, 6, generator=torch.Generator().manual_seed(0))
    x = x * torch.logspace(0, -10, 6)
    fast, exact = (Moments([("x", "x")], precision=p) for p in (torch.float32, torch.float64))
    scale = exact.update({"x": x}).cov("x", "x").diagonal().sqrt()
    error = (fast.update({"x": x}).cov("x", "x") - exact.cov("x", "x")).abs()
    assert (error <= 5e-7 * torch.outer(scale, scale)).all()


def test_float32_products_are_not_rounded_further_and_the_setting_comes_back() -> None:
    backend = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = backend.fp32_precision
    seen: list[str] = []

    class Watching(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if getattr(func, "__name__", "") in ("matmul", "__matmul__", "mm"):
                seen.append(backend.fp32_precision)
            return func(*args, **(kwargs or {}))

    backend.fp32_precision = "bf16"
    try:
        with Watching():
            Moments([("x", "x")], precision=torch.float32).update({"x": torch.randn(9, 3)})
        assert seen == ["ieee"]
        assert backend.fp32_precision == "bf16"
    finally:
        backend.fp32_precision = before


def test_products_in_another_precision_are_refused() -> None:
    with pytest.raises(ValueError, match=r"float16 is unknown; choose torch.float64 or float32"):
        Moments(PAIRS, precision=torch.float16)


def test_memory_is_flat_from_ten_thousand_to_a_million_rows() -> None:
    moments = Moments(PAIRS)
    batch = draw(10_000)
    moments.update(batch)
    small = moments.nbytes
    for _ in range(99):
        moments.update(batch)
    assert moments.count == 1_000_000
    assert moments.nbytes == small == 8 * (5 + 3 + 25 + 15 + 9)


def test_no_batch_outlives_its_update() -> None:
    moments, seen = LabelledMoments(PAIRS), []
    for seed in range(5):
        batch = draw(100, seed)
        seen += [weakref.ref(value) for value in batch.values()]
        moments.update(batch, torch.arange(100) % 3)
        del batch
    assert [ref() for ref in seen] == [None] * 10


def test_moments_of_affine_images_are_affine_images_of_moments() -> None:
    values = draw(300)
    weight, bias = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    still = (torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    image = stream(values, [300]).affine({"x": (weight, bias), "y": still})
    direct = stream({"x": values["x"] @ weight.T + bias, "y": values["y"]}, [300])
    assert_equal(image, direct, 1e-10)


def test_moments_between_two_variables_are_theirs_in_either_order() -> None:
    moments = stream(draw(100), [100])
    pair = moments.between("y", "x")
    torch.testing.assert_close(pair.cov("start", "end"), moments.cov("y", "x"))
    torch.testing.assert_close(pair.mean("end"), moments.mean("x"))


def test_class_moments_add_up_and_leave_a_class_out_exactly() -> None:
    values = draw(400)
    labels = torch.arange(400) % 4
    classes = LabelledMoments(PAIRS)
    for start in range(0, 400, 50):
        rows = slice(start, start + 50)
        classes.update({name: value[rows] for name, value in values.items()}, labels[rows])
    assert classes.classes == (0, 1, 2, 3)
    assert_equal(classes.total(), stream(values, [400]), 1e-11)
    kept = {name: value[labels != 2] for name, value in values.items()}
    assert_equal(classes.without([2]), stream(kept, [300]), 1e-11)
    two = {name: value[labels == 2] for name, value in values.items()}
    assert_equal(classes.by_class[2], stream(two, [100]), 1e-11)


def test_unlabelled_rows_count_overall_only() -> None:
    values = draw(10)
    classes = (
        LabelledMoments(PAIRS).update(values).update(values, torch.zeros(10, dtype=torch.long))
    )
    assert classes.count == classes.total().count == 20
    assert classes.by_class[0].count == classes.without([0]).count == 10


def test_rows_with_a_negative_label_are_rows_without_one() -> None:
    values = draw(90)
    labels = torch.arange(90) % 3 - 1
    classes = LabelledMoments(PAIRS).update(values, labels)
    assert classes.classes == (0, 1)
    assert classes.unlabelled.count == 30
    assert_equal(classes.total(), stream(values, [90]), 1e-11)


@pytest.mark.parametrize("labelled", [False, True])
def test_moments_survive_being_saved_as_tensors(labelled: bool) -> None:
    values = draw(50)
    labels = torch.arange(50) % 3 - 1 if labelled else None
    classes = LabelledMoments(PAIRS).update(values, labels)
    restored = LabelledMoments(PAIRS).load(classes.tensors())
    assert restored.classes == classes.classes
    assert_equal(restored.total(), classes.total(), 0.0)


def test_a_changed_width_is_an_error_that_names_the_variable() -> None:
    moments = Moments([("x", "x")]).update({"x": torch.randn(4, 3)})
    with pytest.raises(ValueError, match=r"'x' had 3 features .* has 4 now"):
        moments.update({"x": torch.randn(4, 4)})


def test_moments_without_rows_say_so() -> None:
    with pytest.raises(ValueError, match="no rows"):
        Moments([("x", "x")]).mean("x")


def test_moments_that_were_not_asked_for_are_named() -> None:
    moments = Moments([("x", "x"), ("y", "y")]).update(draw(5))
    with pytest.raises(KeyError, match="'x' and 'y'"):
        moments.cov("x", "y")


def test_pairs_of_an_unknown_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="'ends', 'chain', 'adjacent' or 'all'"):
        layer_pairs(("a", "b"), "some")  # type: ignore[arg-type]


def test_rows_taken_out_leave_the_moments_of_the_others() -> None:
    rows = {"x": torch.randn(90, 3) + 5, "y": torch.randn(90, 2)}
    pairs = [("x", "x"), ("x", "y")]
    kept, gone = ({name: value[part] for name, value in rows.items()} for part in PARTS)
    rest = Moments(pairs).update(rows).minus(Moments(pairs).update(gone))
    expected = Moments(pairs).update(kept)
    assert rest.count == expected.count
    for pair in pairs:
        torch.testing.assert_close(rest.cov(*pair), expected.cov(*pair), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(rest.mean("x"), expected.mean("x"), rtol=1e-9, atol=1e-9)
    assert rest.merge(Moments(pairs).update(gone)).count == 90


PARTS = (slice(0, 60), slice(60, 90))


def test_more_rows_than_there_are_cannot_be_taken_out() -> None:
    some = Moments([("x", "x")]).update({"x": torch.randn(5, 2)})
    with pytest.raises(ValueError, match=r"cannot take 5 rows .* out of 5 rows"):
        some.minus(some)
