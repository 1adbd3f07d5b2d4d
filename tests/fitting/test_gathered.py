"""Rows of short batches wait: whoever reads finds all of them, each once, with its weight."""

import copy
from collections.abc import Iterator, Mapping
from typing import Self

import pytest
import torch
from torch import Tensor

from torchkoopman.fitting.gathered import Gathered
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.pairs import layer_pairs, regressions

LAYERS = ("a", "b", "c")
PAIRS = layer_pairs(LAYERS, "adjacent")
SPAN = regressions(layer_pairs(LAYERS, "ends"))


def batches(sizes: list[int], seed: int = 0) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Rows far from the origin, and labels of which some are -1."""
    generator = torch.Generator().manual_seed(seed)
    for rows in sizes:
        a = torch.randn(rows, 5, generator=generator) + 100
        values = {"a": a, "b": (a - 100).sin() * 3, "c": (a - 100).cos()[:, :3]}
        yield values, torch.randint(-1, 4, (rows,), generator=generator)


def both(halflife: float | None = None) -> tuple[Gathered, LabelledMoments]:
    made = [LabelledMoments(PAIRS, halflife, SPAN) for _ in range(2)]
    return Gathered(made[0]), made[1]


def waiting(gathered: Gathered) -> int:
    return sum(batch.rows for batch in gathered._waiting)


def assert_alike(found: LabelledMoments, expected: LabelledMoments) -> None:
    mine, theirs = found.tensors(), expected.tensors()
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-9, atol=1e-9)


SIZES = {
    "short": [7] * 40,
    "one row each": [1] * 30,
    "a long one among them": [9, 20, 2000, 9, 20],
    "as many as are enough": [512, 511, 1, 600],
    "empty ones": [0, 30, 0, 0, 30],
}


@pytest.mark.parametrize("halflife", [None, 5.0, 300.0])
@pytest.mark.parametrize("labelled", ["all", "none", "some"])
@pytest.mark.parametrize("sizes", SIZES)
def test_moments_are_those_of_batches_taken_as_they_come(
    sizes: str, labelled: str, halflife: float | None
) -> None:
    gathered, direct = both(halflife)
    for number, (values, labels) in enumerate(batches(SIZES[sizes])):
        known = labels if labelled == "all" or (labelled == "some" and number % 3 == 0) else None
        gathered.update(values, known)
        direct.update(values, known)
        assert gathered.count == pytest.approx(direct.count, rel=1e-12)
    if halflife == 5.0:  # of classes that have faded it is chance which batch saw it
        torch.testing.assert_close(
            gathered.moments.total().cov("a", "c"), direct.total().cov("a", "c")
        )
    else:
        assert_alike(gathered.moments, direct)


def test_short_batches_do_wait_and_a_long_one_does_not() -> None:
    gathered, _ = both()
    for values, labels in batches([40] * 5):
        gathered.update(values, labels)
    assert waiting(gathered) == 200
    assert gathered._taken.count == 0
    for values, labels in batches([2000]):
        gathered.update(values, labels)
    assert waiting(gathered) == 0
    assert gathered._taken.count == 2200


def test_rows_that_wait_are_bounded_in_number_and_in_memory() -> None:
    gathered, _ = both()
    for values, labels in batches([50] * 100):
        gathered.update(values, labels)
        assert waiting(gathered) < 512
    wide = Gathered(LabelledMoments([("x", "y")]))
    for _ in range(20):
        wide.update({"x": torch.randn(16, 10_000), "y": torch.randn(16, 2)})
        assert sum(batch.nbytes for batch in wide._waiting) < 2**22
    many, labels = Gathered(LabelledMoments(PAIRS)), torch.arange(2000)
    for values, _ in batches([2000]):
        many.update(values, labels)
    for values, _ in batches([50] * 50):
        many.update(values, labels[:50])
    assert waiting(many) == 2500, "64 rows for each of two thousand classes"


def test_rows_that_wait_are_copies() -> None:
    gathered, direct = both()
    for values, labels in batches([20, 20]):
        direct.update(values, labels)
        gathered.update(values, labels)
        for value in values.values():
            value.fill_(1e9)
        labels.fill_(0)
    assert_alike(gathered.moments, direct)


def test_rows_keep_no_graph() -> None:
    gathered, _ = both()
    for values, labels in batches([20]):
        gathered.update({n: v.requires_grad_() * 1 for n, v in values.items()}, labels)
    assert not any(v.requires_grad for batch in gathered._waiting for v in batch.values.values())


@pytest.mark.parametrize("change", ["dtype", "labels' dtype", "labels"])
def test_batches_of_another_kind_are_taken_in_their_turn(change: str) -> None:
    gathered, direct = both(halflife=100.0)
    for number, (values, labels) in enumerate(batches([20] * 6)):
        known: Tensor | None = labels
        if number in (2, 3):
            if change == "dtype":
                values = {name: value.double() for name, value in values.items()}
            known = {"dtype": labels, "labels' dtype": labels.int(), "labels": None}[change]
        gathered.update(values, known)
        direct.update(values, known)
    assert_alike(gathered.moments, direct)


@pytest.mark.parametrize("halflife", [None, 30.0])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("rows", [10, 600])
@pytest.mark.parametrize("before", [[20, 20], [600]])
def test_another_width_is_refused_by_the_batch_that_has_it_and_nothing_is_lost(
    before: list[int], rows: int, labelled: bool, halflife: float | None
) -> None:
    gathered, direct = both(halflife)
    for values, labels in batches(before):
        gathered.update(values, labels if labelled else None)
        direct.update(values, labels if labelled else None)
    values, _ = next(batches([rows], seed=1))
    late = torch.full((rows,), 7) if labelled else None
    with pytest.raises(ValueError, match="had 5 features in earlier batches and has 4 now"):
        gathered.update({**values, "a": values["a"][:, :4]}, late)
    assert gathered.count == pytest.approx(direct.count)
    assert_alike(gathered.moments, direct)
    gathered.update(values, late)
    direct.update(values, late)
    assert_alike(gathered.moments, direct)


def test_neither_looking_nor_a_state_that_holds_rows_that_wait_changes_a_bit() -> None:
    runs = [both()[0] for _ in range(3)]
    for number, (values, labels) in enumerate(batches([30] * 60)):
        for gathered in runs:
            gathered.update(values, labels)
        if number % 5 == 0:
            assert runs[1].moments.count == 30 * (number + 1)  # reading changes no bit either
        if number % 7 == 0:
            state = copy.deepcopy(runs[1].state())
            runs[2] = Gathered(LabelledMoments(PAIRS, None, SPAN)).load(state)
            assert runs[2].count == runs[0].count
    assert runs[0].moments.same_as(runs[1].moments)
    assert runs[0].moments.same_as(runs[2].moments)


def test_large_sums_take_rows_in_when_they_are_read_and_are_not_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gathered, direct = both()
    for values, labels in batches([30] * 4):
        gathered.update(values, labels)
        direct.update(values, labels)
    copied = gathered.moments
    assert copied is not gathered._taken
    assert waiting(gathered) == 120
    monkeypatch.setattr("torchkoopman.fitting.gathered._COPIED", -1)
    assert gathered.moments is gathered._taken
    assert waiting(gathered) == 0
    assert_alike(gathered.moments, direct)
    assert gathered.moments.same_as(copied)


def test_sums_alone_load_as_they_are_in_older_states() -> None:
    gathered, direct = both()
    for values, labels in batches([30] * 10):
        gathered.update(values, labels)
        direct.update(values, labels)
    loaded = both()[0].load(direct.tensors())
    assert loaded.count == 300
    assert_alike(loaded.moments, gathered.moments)


def test_a_class_that_faded_before_rows_that_wait_is_none_and_its_rows_count() -> None:
    gathered, direct = both(halflife=10.0)
    for number, (values, labels) in enumerate(batches([40] * 8)):
        known = torch.full_like(labels, 3 if number == 0 else 1)
        gathered.update(values, known)
        direct.update(values, known)
    assert gathered.moments.classes == direct.classes == (1,)
    assert gathered.count == pytest.approx(direct.count, rel=1e-12)


def test_rows_that_weigh_nothing_any_more_do_no_harm() -> None:
    gathered, direct = both(halflife=0.3)
    for number, (values, labels) in enumerate(batches([40] * 13)):
        known = None if number in (0, 1) else torch.full_like(labels, -1 if number in (2, 3) else 2)
        gathered.update(values, known)
        direct.update(values, known)
    assert gathered.moments.count == pytest.approx(direct.count) == gathered.count == 40
    assert gathered.moments.classes == direct.classes == (2,)
    found, expected = (each.total().cov("a", "c") for each in (gathered.moments, direct))
    torch.testing.assert_close(found, expected)


class Broken(LabelledMoments):
    """Moments that break off once, when they have taken nothing."""

    broken = True

    def update(
        self,
        values: Mapping[str, Tensor],
        labels: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Self:
        if self.broken:
            self.broken = False
            raise KeyboardInterrupt
        return super().update(values, labels, weights)


@pytest.mark.parametrize("again", [True, False])
def test_where_products_broke_off_before_the_first_all_but_the_last_batch_wait(again: bool) -> None:
    gathered, direct = Gathered(Broken(PAIRS, None, SPAN)), both()[1]
    *first, last = batches([100] * 6)
    for values, labels in first:
        gathered.update(values, labels)
        direct.update(values, labels)
    with pytest.raises(KeyboardInterrupt):
        gathered.update(*last)
    assert gathered.count == waiting(gathered) == 500
    for values, labels in ([last] if again else []) + list(batches([100] * 7, seed=1)):
        gathered.update(values, labels)
        direct.update(values, labels)
    assert gathered.count == direct.count
    assert_alike(gathered.moments, direct)


def test_rows_that_cannot_be_joined_still_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    gathered, direct = both()
    *first, last = batches([100] * 6)
    for values, labels in first:
        gathered.update(values, labels)
        direct.update(values, labels)

    def full(*_: object) -> Tensor:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(torch, "cat", full)
        with pytest.raises(MemoryError):
            gathered.update(*last)
    assert gathered.count == 500
    gathered.update(*last)
    direct.update(*last)
    assert gathered.count == 600
    assert_alike(gathered.moments, direct)
