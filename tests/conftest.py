"""What all tests share: fixtures of many files, and ``--quick``, a minute's look at each room."""

from __future__ import annotations

import copy
import gc
import signal
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.quick import is_quick, left_out
from tests.sessions import start_of_pages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--quick``, which ``make quick`` gives."""
    parser.addoption("--quick", action="store_true", help="some files of each room, no slow tests")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files that are left out are not even imported, which alone would take its time."""
    asked = config.getoption("quick") and collection_path.is_file()
    return True if asked and not is_quick(collection_path) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests of the files that are not left out."""
    if config.getoption("quick"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=slow)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Which files were left out, by folder, so that nobody takes this for the whole check."""
    if not config.getoption("quick"):
        return
    missing = left_out()
    count = sum(map(len, missing.values()))
    terminalreporter.section(f"left out: {count} files of tests, and slow tests of the others")
    for folder, names in missing.items():
        terminalreporter.write_line(f"{folder}/: {', '.join(names)}")


@pytest.fixture
def hears_interrupts() -> Iterator[None]:
    """Ctrl-C as in a terminal: a process started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="module")
def without_what_is_left() -> None:
    """Keep the garbage collector, which tracing and attaching call, from what earlier files left.

    Of a process that has run half of the tests, each call would otherwise search a gigabyte.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def begun() -> dict[str, Any]:
    """What ``docs/start.py`` defines, made once for a file of tests."""
    return start_of_pages()


@pytest.fixture
def start(begun: dict[str, Any]) -> dict[str, Any]:
    """A copy of it for one test: what a page does to the model, its mode too, is gone then."""
    imported = {name: each for name, each in begun.items() if isinstance(each, ModuleType)}
    builtins = {"__builtins__": begun["__builtins__"]}
    own = {name: each for name, each in begun.items() if name not in {*imported, *builtins}}
    return copy.deepcopy(own) | imported | builtins


@pytest.fixture
def threads() -> Iterator[int]:
    """How many threads torch has, given back after a test that sets their number."""
    number = torch.get_num_threads()
    yield number
    torch.set_num_threads(number)
