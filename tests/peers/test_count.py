"""How many of the peers' checks hold as they are written."""

import importlib
from pathlib import Path

import pytest

from tests.peers.checks import CHECKS

HERE = Path(__file__).parent
PEERS = ("PyDMD", "deeptime", "kooplearn")


@pytest.fixture(scope="module", autouse=True)
def _all_checks() -> None:
    for path in sorted(HERE.glob("test_*.py")):
        importlib.import_module(f"tests.peers.{path.stem}")


def test_nine_of_ten_checks_hold_as_written_and_the_others_say_why_not() -> None:
    """That those without a reason hold, and those with one do not, is what their tests assert."""
    differing = {name: check.reason for name, check in CHECKS.items() if check.reason}
    assert len(CHECKS) >= 50
    assert len(differing) <= 0.1 * len(CHECKS), differing


def test_each_check_names_a_test_of_its_peer_and_none_is_counted_twice() -> None:
    named = [check.upstream for check in CHECKS.values()]
    assert len(set(named)) == len(named)
    assert all(name.startswith(PEERS) and "test_" in name for name in named)
    assert all(any(name.startswith(peer) for name in named) for peer in PEERS)
