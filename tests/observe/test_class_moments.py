"""By class only what forgetting takes is kept, and nothing of all rows is lost by that."""

import pytest
import torch
from torch import Tensor

from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs, regressions

LAYERS = ("a", "b", "c")
CHAIN = layer_pairs(LAYERS, "chain")
SPAN = regressions(layer_pairs(LAYERS, "ends"))


def draw(rows: int, seed: int = 0, offset: float = 1e4) -> tuple[dict[str, Tensor], Tensor]:
    """Rows far from the origin, float32 as activations are, and labels of which some are -1."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rows, 4, generator=generator) * torch.tensor([100.0, 1.0, 1.0, 0.1]) + offset
    values = {"a": a, "b": (a - offset).sin() + 3, "c": (a - offset).cos()[:, :3]}
    return values, torch.randint(-1, 4, (rows,), generator=generator)


def streamed(moments: LabelledMoments, values: dict[str, Tensor], labels: Tensor | None) -> None:
    for start in range(0, len(values["a"]), 37):
        rows = slice(start, start + 37)
        part = {name: value[rows] for name, value in values.items()}
        moments.update(part, None if labels is None else labels[rows])


def exact(values: dict[str, Tensor], pair: tuple[str, str], rows: Tensor | None = None) -> Tensor:
    """The covariance by the batch formula, in float64."""
    x, y = (values[name].double() if rows is None else values[name][rows].double() for name in pair)
    return (x - x.mean(0)).T @ (y - y.mean(0)) / len(x)


def assert_near(found: Tensor, expected: Tensor, tolerance: float = 1e-11) -> None:
    assert (found - expected).norm() <= tolerance * expected.norm()


def older(values: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
    """The tensors of a file that had all pairs of every class."""
    streams = {"unlabelled": Moments(CHAIN), **{f"class/{c}": Moments(CHAIN) for c in range(4)}}
    for c, moments in zip((-1, 0, 1, 2, 3), streams.values(), strict=True):
        moments.update({name: value[labels == c] for name, value in values.items()})
    return {
        f"{stream}/{name}": tensor
        for stream, moments in streams.items()
        for name, tensor in moments.tensors().items()
    }


@pytest.mark.parametrize("class_pairs", [None, SPAN, tuple(CHAIN)])
def test_what_no_class_keeps_is_there_of_all_rows(
    class_pairs: tuple[tuple[str, str], ...] | None,
) -> None:
    values, labels = draw(400)
    moments = LabelledMoments(CHAIN, class_pairs=class_pairs)
    streamed(moments, values, labels)
    total = moments.total()
    assert total.count == moments.count == 400
    assert total.pairs == tuple(CHAIN)
    for pair in CHAIN:
        assert_near(total.cov(*pair), exact(values, pair))
    kept = labels != 2
    for pair in moments.class_pairs:
        assert_near(moments.by_class[2].cov(*pair), exact(values, pair, labels == 2))
        assert_near(moments.without([2]).cov(*pair), exact(values, pair, kept))
    assert moments.without([9]).pairs == tuple(CHAIN)


def test_a_covariance_that_classes_do_not_keep_is_refused_by_name() -> None:
    moments = LabelledMoments(CHAIN)
    streamed(moments, *draw(100))
    with pytest.raises(KeyError, match="'c' and 'c' was not asked for"):
        moments.by_class[0].cov("c", "c")
    with pytest.raises(KeyError, match="'c' and 'c' was not asked for"):
        moments.without([0]).cov("c", "c")


@pytest.mark.parametrize("class_pairs", [None, SPAN])
def test_older_files_of_all_pairs_of_every_class_load_and_go_on(
    class_pairs: tuple[tuple[str, str], ...] | None,
) -> None:
    values, labels = draw(300)
    more, other = draw(200, 1)
    loaded = LabelledMoments(CHAIN, class_pairs=class_pairs).load(older(values, labels))
    fresh = LabelledMoments(CHAIN, class_pairs=class_pairs)
    streamed(fresh, values, labels)
    for moments in (loaded, fresh):
        streamed(moments, more, other)
    again = LabelledMoments(CHAIN, class_pairs=class_pairs).load(loaded.tensors())
    assert again.same_as(loaded)
    for found in (loaded, again):
        assert found.nbytes == fresh.nbytes
        for pair in CHAIN:
            assert_near(found.total().cov(*pair), fresh.total().cov(*pair))
        for label in fresh.classes:
            assert found.by_class[label].count == fresh.by_class[label].count
            assert_near(found.by_class[label].cov("a", "c"), fresh.by_class[label].cov("a", "c"))


@pytest.mark.parametrize(("start", "end"), [("a", "c"), ("a", "b"), ("b", "c")])
def test_a_span_has_the_moments_of_its_rows_and_of_classes_where_they_were_kept(
    start: str, end: str
) -> None:
    values, labels = draw(300)
    whole, span = LabelledMoments(CHAIN), LabelledMoments(CHAIN, class_pairs=SPAN)
    for moments in (whole, span):
        streamed(moments, values, labels)
        pair = moments.between(start, end)
        for role, name in {("end", "end"): (end, end), ("start", "end"): (start, end)}.items():
            assert_near(pair.total().cov(*role), exact(values, name))
    assert whole.between(start, end).classes == (0, 1, 2, 3)
    assert span.between(start, end).classes == ((0, 1, 2, 3) if (start, end) == ("a", "c") else ())
    found = whole.between(start, end).without([1]).cov("start", "end")
    assert_near(found, exact(values, (start, end), labels != 1))


def test_affine_images_and_merges_keep_all_rows() -> None:
    values, labels = draw(300)
    one, two, both = (LabelledMoments(CHAIN, class_pairs=SPAN) for _ in range(3))
    streamed(one, *draw(300))
    streamed(two, {n: v[:100] for n, v in draw(100, 5)[0].items()}, None)
    streamed(both, values, labels)
    streamed(both, draw(100, 5)[0], None)
    maps = {"a": (torch.ones(2, 4), torch.zeros(2)), "c": (torch.eye(3), torch.ones(3))}
    merged = one.merge(two)
    for moments, expected in ((merged, both), (merged.affine(maps), both.affine(maps))):
        for pair in moments.pairs:
            assert_near(moments.total().cov(*pair), expected.total().cov(*pair))
    assert merged.affine(maps).without([1]).count == both.without([1]).count
    with pytest.raises(ValueError, match=r"cannot merge moments of .* by class"):
        one.merge(LabelledMoments(CHAIN))


def test_a_class_that_faded_away_still_counts_overall() -> None:
    values, _ = draw(60)
    labels = torch.cat([torch.zeros(10), torch.ones(50)]).long()
    moments = LabelledMoments(CHAIN, halflife=2.0)
    for row in range(60):
        part = {name: value[row : row + 1] for name, value in values.items()}
        moments.update(part, labels[row : row + 1])
    assert moments.classes == (1,)
    weights = 0.5 ** ((59 - torch.arange(60.0, dtype=torch.float64)) / 2)
    total, c = moments.total(), values["c"].double()
    centred = c - (weights @ c) / weights.sum()
    expected = (weights[:, None] * centred).T @ centred / weights.sum()
    assert_near(total.cov("c", "c"), expected, 1e-9)
    assert total.count == pytest.approx(weights.sum().item(), rel=1e-12)
    again = LabelledMoments(CHAIN, halflife=2.0).load(moments.tensors())
    assert again.same_as(moments)


def test_ten_classes_take_two_matrices_each() -> None:
    layers, width = tuple("abcde"), 50
    pairs = layer_pairs(layers, "chain")
    moments = LabelledMoments(pairs, class_pairs=regressions(layer_pairs(layers, "ends")))
    generator = torch.Generator().manual_seed(0)
    values = {layer: torch.randn(100, width, generator=generator) for layer in layers}
    moments.update(values, torch.arange(100) % 10)
    matrices = moments.nbytes / (8 * width**2)
    assert matrices < 10 * 2.1 + len(pairs)  # of 10 classes 10 × 10 when each had all pairs


@pytest.mark.parametrize("labels", [None, [0, 1, -1, 1], [0, 0, 0, 0]])
def test_moments_that_are_read_are_those_of_all_rows_and_a_copy_stays(
    labels: list[int] | None,
) -> None:
    values = {name: torch.randn(4, 3, dtype=torch.float64) for name in ("a", "b")}
    moments = LabelledMoments([("a", "a"), ("a", "b"), ("b", "b")])
    moments.update(values, None if labels is None else torch.tensor(labels))
    copy = moments.total()
    kept = {name: tensor.clone() for name, tensor in copy.tensors().items()}
    for name, tensor in moments.viewed().tensors().items():
        torch.testing.assert_close(tensor, kept[name], rtol=1e-12, atol=1e-15)
    moments.update(values).update(values)
    assert moments.viewed().count == 12
    assert all(torch.equal(tensor, kept[name]) for name, tensor in copy.tensors().items())
