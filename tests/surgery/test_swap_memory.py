"""A swap needs the memory of the model that it returns, and little more."""

import pytest

from benchmarks.costs.swap_memory import GOAL, WAYS, Subject, added


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_swap_adds_one_copy_of_the_model_at_its_peak(way: str) -> None:
    assert added(way, 120) <= GOAL


def test_a_model_is_as_large_as_asked_for() -> None:
    assert Subject(20).bytes == pytest.approx(20e6, rel=0.02)
