"""Cost: the modules of ``benchmarks/costs``, as one part of the bench."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

FOLDER = Path(__file__).parents[1] / "costs"


def benchmarks() -> dict[str, ModuleType]:
    """Benchmark → its module: every file that has jobs."""
    names = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
    modules = {name: importlib.import_module(f"benchmarks.costs.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "jobs")}


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """All their jobs, each named after its benchmark first."""
    return {
        f"{name}-{job}": measure
        for name, module in benchmarks().items()
        for job, measure in module.jobs(quick).items()
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Their tables, one after the other."""
    texts = []
    for name, module in benchmarks().items():
        own = {
            job.removeprefix(f"{name}-"): result
            for job, result in results.items()
            if job.startswith(f"{name}-")
        }
        if own:
            texts.append(f"{name.replace('_', ' ')}\n\n{module.table(own)}")
    return "\n\n".join(texts)
