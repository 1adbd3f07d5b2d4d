"""Cost: the modules of ``benchmarks/costs``, as one part of the bench; ``peers.py`` has some."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.parts import peers

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

FOLDER = Path(__file__).parents[1] / "costs"


def benchmarks() -> dict[str, ModuleType]:
    """Benchmark → its module: every file that has jobs."""
    names = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
    modules = {name: importlib.import_module(f"benchmarks.costs.{name}") for name in names}
    others = peers.benchmarks()
    return {
        n: module for n, module in modules.items() if n not in others and hasattr(module, "jobs")
    }


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """All their jobs, each named after its benchmark first."""
    return peers.jobs_of(benchmarks(), quick)


def table(results: dict[str, dict[str, Any]]) -> str:
    """Their tables, one after the other."""
    return peers.tables_of(benchmarks(), results)
