"""Numbers that pages show: to the digits shown, and no further off."""

import doctest

import pytest

from tests.sessions import Rounded, run_session


@pytest.mark.parametrize(
    ("shown", "found", "same"),
    [
        ("0.8", "0.8312", True),
        ("0.8", "0.92", False),
        ("(0.97, 0.03)", "(0.978, 0.0271)", True),
        ("(0.97, 0.03)", "(0.978, 0.0491)", False),
        ("tensor([1.1, 1.0])", "tensor([1.0912, 1.0000])", True),
        ("tensor([1.1, 1.0])", "tensor([1.0912, 1.0000, 0.5])", False),
        ("-0.5", "0.5", False),
        ("0.5", "0.5 of them", False),
        ("3", "4", False),
        ("0.5", "nan", False),
    ],
)
def test_a_number_is_right_to_the_last_digit_shown(shown: str, found: str, same: bool) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert Rounded().check_output(f"{shown}\n", f"{found}\n", flags) == same


def test_a_session_that_shows_another_number_fails() -> None:
    run_session(">>> 0.5 + 0.31\n0.8\n", {}, "page", 1)
    with pytest.raises(AssertionError, match=r"Expected:\s+0\.6\s+Got:\s+0\.81"):
        run_session(">>> 0.5 + 0.31\n0.6\n", {}, "page", 1)
