"""The reservoir: bounded, uniform, reproducible, labels beside their rows."""

import copy
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.systems import seeded
from torchkoopman.fitting.replay import Reservoir

ROW_BYTES = 2 * 3 * 4 + 16  # with the label and the number of its sample
"""Two layers of three float32 coordinates."""


def paths(start: int, stop: int) -> Tensor:
    """Row number t holds t everywhere, so that it can be recognised."""
    return torch.arange(start, stop).float()[:, None, None].expand(-1, 2, 3).contiguous()


def kept(reservoir: Reservoir) -> Tensor:
    return reservoir[:][0][:, 0, 0].long()


def test_everything_is_kept_in_order_below_capacity() -> None:
    reservoir = Reservoir(100 * ROW_BYTES, seeded())
    for start, stop in ((0, 10), (10, 11), (11, 100)):
        reservoir.add(paths(start, stop))
    assert len(reservoir) == reservoir.seen == 100
    torch.testing.assert_close(kept(reservoir), torch.arange(100))


@pytest.mark.parametrize("limit", [ROW_BYTES, 10 * ROW_BYTES - 1, 10 * ROW_BYTES, 1000])
def test_memory_never_exceeds_its_bound(limit: int) -> None:
    reservoir = Reservoir(limit, seeded())
    for start in range(0, 500, 50):
        reservoir.add(paths(start, start + 50))
        held = reservoir[:][0]
        assert held.numel() * held.element_size() <= limit
    assert len(reservoir) == limit // ROW_BYTES
    assert reservoir.seen == 500


def test_what_is_kept_was_streamed_and_is_kept_once() -> None:
    reservoir = Reservoir(40 * ROW_BYTES, seeded())
    for start in range(0, 400, 33):
        reservoir.add(paths(start, start + 33))
    rows = kept(reservoir)
    assert len(rows.unique()) == 40
    held = reservoir[:][0]
    assert (held == held[:, :1, :1]).all(), "a row is written whole or not at all"
    assert ((rows >= 0) & (rows < reservoir.seen)).all()


def test_every_row_of_the_stream_is_kept_with_equal_probability() -> None:
    """2 000 streams of 60 rows into 12 places, in uneven batches: χ² of the inclusion counts."""
    generator, trials = seeded(1), 2000
    counts = torch.zeros(60)
    for _ in range(trials):
        reservoir = Reservoir(12 * ROW_BYTES, generator)
        for start, stop in ((0, 7), (7, 30), (30, 31), (31, 60)):
            reservoir.add(paths(start, stop))
        counts[kept(reservoir)] += 1
    share = 12 / 60
    assert counts.sum() == trials * 12
    deviation = (counts - trials * share) / (trials * share * (1 - share)) ** 0.5
    assert deviation.abs().max() < 4
    # The counts sum to a constant: χ² with 59 degrees of freedom, whose deviation is √118 ≈ 11.
    chi_square = deviation.square().sum() * 59 / 60
    assert 59 - 4 * 11 < chi_square < 59 + 4 * 11


def test_labels_stay_with_their_rows() -> None:
    reservoir = Reservoir(25 * ROW_BYTES, seeded())
    for start in range(0, 300, 20):
        rows = torch.arange(start, start + 20)
        reservoir.add(paths(start, start + 20), rows % 7)
    held, labels = reservoir[:]
    torch.testing.assert_close(labels, held[:, 0, 0].long() % 7)


def test_rows_without_labels_are_marked_minus_one_and_take_places_of_labelled_ones() -> None:
    reservoir = Reservoir(10 * ROW_BYTES, seeded())
    reservoir.add(paths(0, 10), torch.arange(10))
    reservoir.add(paths(10, 200))
    held, labels = reservoir[:]
    expected = torch.where(held[:, 0, 0] < 10, held[:, 0, 0], -1.0).long()
    torch.testing.assert_close(labels, expected)
    assert (labels == -1).any()


def test_a_slice_is_of_what_is_filled() -> None:
    reservoir = Reservoir(100 * ROW_BYTES, seeded()).add(paths(0, 30))
    assert [len(reservoir[start : start + 12][0]) for start in range(0, 30, 12)] == [12, 12, 6]


@pytest.mark.parametrize("filled", [1, 4, 5, 9, 20, 23])
def test_samples_are_drawn_uniformly_with_replacement_from_what_is_not_held_out(
    filled: int,
) -> None:
    reservoir = Reservoir(100 * ROW_BYTES, seeded()).add(paths(0, filled))
    drawn = reservoir.sample(20_000)
    assert drawn.shape == (20_000, 2, 3)
    counts = torch.bincount(drawn[:, 0, 0].long(), minlength=filled)
    held_out = torch.arange(filled) % 5 == 4
    assert len(counts) == filled
    assert (counts[held_out] == 0).all()
    expected = 20_000 / int((~held_out).sum())
    assert ((counts[~held_out] - expected).abs() < 5 * expected**0.5).all()


def test_what_is_held_out_and_what_is_trained_on_are_all_there_is_and_share_nothing() -> None:
    reservoir = Reservoir(100 * ROW_BYTES, seeded()).add(paths(0, 33))
    held_out, trained = (
        part[:, 0, 0].long() for part in (reservoir.held_out(33), reservoir.trained(33))
    )
    torch.testing.assert_close(held_out, torch.arange(4, 33, 5))
    torch.testing.assert_close(torch.cat([held_out, trained]).sort().values, torch.arange(33))
    assert len(reservoir.held_out(10)) == 2
    assert len(reservoir.trained(10)) == 8


def test_a_path_once_trained_on_is_never_held_out_later_nor_the_other_way_round() -> None:
    """Places are taken anew while the stream goes on; what a batch has shown stays shown."""
    reservoir, shown, held = Reservoir(20 * ROW_BYTES, seeded()), set(), set()
    for start in range(0, 400, 10):
        reservoir.add(paths(start, start + 10))
        shown |= set(reservoir.sample(50)[:, 0, 0].long().tolist())
        held |= set(reservoir.held_out(20)[:, 0, 0].long().tolist())
    assert len(shown) > 40
    assert len(held) > 10
    assert not shown & held


def test_the_same_generator_gives_the_same_sample_and_the_global_seed_is_of_no_account() -> None:
    def run(global_seed: int) -> tuple[Tensor, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(global_seed)
            state = torch.get_rng_state()
            reservoir = Reservoir(15 * ROW_BYTES, seeded(3))
            for start in range(0, 200, 40):
                reservoir.add(paths(start, start + 40))
            drawn = reservoir.sample(9)
            assert torch.equal(state, torch.get_rng_state())
        return kept(reservoir), drawn

    for first, second in zip(run(0), run(1), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_a_batch_without_rows_changes_nothing() -> None:
    reservoir = Reservoir(10 * ROW_BYTES, seeded()).add(paths(0, 5))
    reservoir.add(paths(0, 0))
    assert len(reservoir) == reservoir.seen == 5


def test_a_first_batch_without_rows_is_no_error() -> None:
    reservoir = Reservoir(10 * ROW_BYTES, seeded()).add(paths(0, 0)).add(paths(0, 5))
    assert len(reservoir) == reservoir.seen == 5


def test_what_is_kept_is_a_copy() -> None:
    rows = paths(0, 5)
    reservoir = Reservoir(10 * ROW_BYTES, seeded()).add(rows)
    rows.zero_()
    torch.testing.assert_close(kept(reservoir), torch.arange(5))


def test_one_path_is_kept_even_if_it_is_larger_than_the_bound() -> None:
    assert len(Reservoir(1, seeded()).add(paths(0, 5))) == 1


BIASED_BYTES = ROW_BYTES + 16
"""Beside these each path has the place that it was drawn into, and its age."""


def shares(halflife: float, places: int, stop: int, trials: int) -> Tensor:
    """How often each row of a stream of ``stop`` was in the sample at its end."""
    generator, counts = seeded(2), torch.zeros(stop, dtype=torch.float64)
    cuts = [0, 7, 30, 31, *range(60, stop, 29), stop]
    for _ in range(trials):
        reservoir = Reservoir(places * BIASED_BYTES, generator, halflife)
        for start, end in pairwise(cuts):
            reservoir.add(paths(start, end))
        counts[kept(reservoir)] += 1
    return counts / trials


def assert_shares(measured: Tensor, expected: Tensor, trials: int) -> None:
    """No share is off by more than 4.5 deviations, and χ² is what it should be."""
    z = (measured - expected) / (expected * (1 - expected) / trials).clamp(min=1e-12).sqrt()
    counted = (expected * trials > 5) & ((1 - expected) * trials > 5)
    assert z[counted].abs().max() < 4.5
    chi_square, freedom = z[counted].square().sum().item(), int(counted.sum())
    # Rows compete for places, which makes the sum a little smaller than of independent ones.
    assert 0.5 * freedom < chi_square < freedom + 4 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("memory", [8, 1000])
@pytest.mark.parametrize("stop", [33, 60, 150])
def test_with_a_halflife_a_row_is_kept_with_a_probability_in_proportion_to_2_to_the_minus_age(
    stop: int, memory: int
) -> None:
    """Whether or not memory is short, and also while there are few rows."""
    halflife, trials = 20.0, 4000
    dying = 1 - 2 ** (-1 / halflife)
    places = min(memory, int(1 / dying))
    row = torch.arange(stop, dtype=torch.float64)
    expected = places * dying * 2 ** (-(stop - 1 - row) / halflife)
    # Of the first rows, as many as there are places, all draw one.
    full = min(places, stop)
    first = (1 - 1 / places) ** (full - 1 - row[:full])
    expected[:full] = first * 2 ** (-(stop - full) / halflife)
    assert_shares(shares(halflife, memory, stop, trials), expected, trials)


def test_a_biased_sample_is_bounded_keeps_labels_and_writes_each_row_once() -> None:
    reservoir = Reservoir(10**9, seeded(), halflife=50)
    for start in range(0, 2000, 90):
        rows = torch.arange(start, start + 90)
        reservoir.add(paths(start, start + 90), rows % 7)
    held, labels = reservoir[:]
    assert 65 < len(reservoir) <= 50 / 0.693 + 1
    assert reservoir.seen == 2070
    assert len(kept(reservoir).unique()) == len(reservoir)
    torch.testing.assert_close(labels, held[:, 0, 0].long() % 7)
    small = Reservoir(10 * BIASED_BYTES, seeded(), halflife=50)
    small.add(paths(0, 5))
    assert len(small) > 0
    assert len(small.add(paths(5, 3000))) == 10


def test_a_path_has_the_weight_that_its_row_has_in_moments_of_the_same_halflife() -> None:
    reservoir, sizes = Reservoir(10**6, seeded(), halflife=40), [30, 20, 50, 10]
    starts = [0, 30, 50, 100]
    for start, size in zip(starts, sizes, strict=True):
        reservoir.add(paths(start, start + size))
    later = torch.tensor([80.0, 60.0, 10.0, 0.0]).repeat_interleave(torch.tensor(sizes))
    assert reservoir.weights is not None
    expected = torch.exp2(-later.double() / 40)[kept(reservoir)]
    torch.testing.assert_close(reservoir.weights, expected)
    assert Reservoir(10**6, seeded()).add(paths(0, 5)).weights is None


@pytest.mark.parametrize("halflife", [1e-3, 0.5, 1, 1e12])
def test_no_halflife_leaves_the_sample_empty(halflife: float) -> None:
    reservoir = Reservoir(20 * BIASED_BYTES, seeded(), halflife)
    for start in range(0, 60, 3):
        assert len(reservoir.add(paths(start, start + 3))) >= 1


@pytest.mark.parametrize("halflife", [0, -1.0, float("nan"), float("inf")])
def test_a_halflife_that_is_not_positive_is_refused(halflife: float) -> None:
    with pytest.raises(ValueError, match="positive number of rows"):
        Reservoir(1000, seeded(), halflife)


@pytest.mark.parametrize("halflife", [None, 30.0])
@pytest.mark.parametrize("before", [0, 7, 60, 400])
def test_a_saved_reservoir_goes_on_as_if_nothing_had_happened(
    halflife: float | None, before: int, tmp_path: Path
) -> None:
    one = Reservoir(60 * ROW_BYTES, seeded(4), halflife)
    one.add(paths(0, before), torch.arange(before))
    torch.save(copy.deepcopy(one.state_dict()), tmp_path / "state")
    other = Reservoir(60 * ROW_BYTES, seeded(9), halflife)
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for reservoir in (one, other):
        reservoir.add(paths(before, before + 50)).add(paths(0, 3))
    for mine, theirs in zip(one[:], other[:], strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(one.sample(20), other.sample(20))
    assert halflife is None or torch.equal(one.weights, other.weights)  # type: ignore[arg-type]


def test_a_loaded_reservoir_shares_nothing_with_what_it_was_loaded_from() -> None:
    one = Reservoir(10 * ROW_BYTES, seeded()).add(paths(0, 10))
    state = one.state_dict()
    other = Reservoir(10 * ROW_BYTES, seeded()).load_state_dict(state).add(paths(10, 200))
    assert kept(one).tolist() == list(range(10))
    assert kept(other).tolist() != list(range(10))


def test_a_sample_too_large_is_refused_before_anything_changes() -> None:
    state = Reservoir(20 * ROW_BYTES, seeded()).add(paths(0, 20)).state_dict()
    small = Reservoir(10 * ROW_BYTES, seeded()).add(paths(50, 53))
    with pytest.raises(ValueError, match="max_bytes"):
        small.load_state_dict(state)
    assert kept(small).tolist() == [50, 51, 52]


def streamed(rows: range, generator: torch.Generator, halflife: float | None) -> Reservoir:
    reservoir = Reservoir(12 * ROW_BYTES, generator, halflife)
    for start in range(rows.start, rows.stop, 7):
        reservoir.add(paths(start, min(start + 7, rows.stop)))
    return reservoir


def test_every_row_of_merged_streams_is_kept_with_equal_probability() -> None:
    """Streams of 40, 9 and 20 rows, merged one after the other: χ² of the inclusion counts."""
    generator, trials = seeded(2), 1500
    counts = torch.zeros(69)
    for _ in range(trials):
        merged = streamed(range(40), generator, None)
        merged.merge(streamed(range(40, 49), generator, None))
        merged.merge(streamed(range(49, 69), generator, None))
        assert len(merged) == 12
        assert merged.seen == 69
        counts[kept(merged)] += 1
    expected = trials * 12 / 69
    chi = ((counts - expected) ** 2 / (expected * (1 - 12 / 69))).sum().item()
    assert chi < 69 + 5 * (2 * 69) ** 0.5


def test_merged_streams_with_a_halflife_are_kept_by_their_weights() -> None:
    """Two saturated streams and one of the same length merged later: a third of the places each."""
    generator, trials, halflife = seeded(3), 400, 20.0
    shares = torch.zeros(3)
    for _ in range(trials):
        one, two, three = (streamed(range(t, t + 140), generator, halflife) for t in (0, 140, 280))
        one.merge(two).merge(three)
        assert len(one) == 8  # with its age a row takes half as much again
        assert one.weights is not None
        assert bool((one.weights <= 1).all())
        shares += torch.bincount(kept(one) // 140, minlength=3) / len(one)
    torch.testing.assert_close(shares / trials, torch.full((3,), 1 / 3), atol=0.03, rtol=0)


def test_paths_held_out_are_held_out_after_a_merger() -> None:
    one = Reservoir(50 * ROW_BYTES, seeded(5)).add(paths(0, 50))
    held, trained = (
        set(part[:, 0, 0].long().tolist()) for part in (one.held_out(50), one.trained(50))
    )
    one.merge(Reservoir(50 * ROW_BYTES, seeded(6)).add(paths(100, 150)))
    assert not held & set(one.trained(50)[:, 0, 0].long().tolist())
    assert not trained & set(one.held_out(50)[:, 0, 0].long().tolist())
    assert 10 < (kept(one) >= 100).sum() < 40


@pytest.mark.parametrize("halflife", [None, 40.0])
def test_a_merged_reservoir_streams_on(halflife: float | None) -> None:
    one, two = (
        streamed(range(4), seeded(7), halflife),
        streamed(range(100, 104), seeded(8), halflife),
    )
    before = sorted([*kept(one).tolist(), *kept(two).tolist()])
    assert sorted(kept(one.merge(two)).tolist()) == before
    one.add(paths(200, 240))
    assert len(one) == (12 if halflife is None else 8)
    assert len(set(kept(one).tolist())) == len(one)


def test_reservoirs_that_do_not_fit_are_not_merged() -> None:
    one = Reservoir(10 * ROW_BYTES, seeded()).add(paths(0, 5))
    wide = Reservoir(10 * ROW_BYTES, seeded()).add(torch.zeros(3, 2, 4))
    others = [one, wide, Reservoir(9 * ROW_BYTES, seeded()), Reservoir(10 * ROW_BYTES, seeded(), 5)]
    for other in others:
        with pytest.raises(ValueError, match="max_bytes and halflife"):
            one.merge(other)
    assert kept(one).tolist() == [0, 1, 2, 3, 4]
