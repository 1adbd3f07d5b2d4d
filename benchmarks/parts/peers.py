"""Costs beside peers in one run: fits, short batches, classes, comparison, shape, operators.

Of ``benchmarks/costs`` the modules whose results are kept. A peer that is not installed is said to
be missing; ``pip install dsa-metric`` for DSA, the others come with the extra ``bench``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.costs import (
    class_moments,
    comparison,
    operator_share,
    persistence,
    same_statistics,
    short_batches,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType


def benchmarks() -> dict[str, ModuleType]:
    """Benchmark → its module."""
    modules = (
        same_statistics, short_batches, class_moments, comparison, persistence, operator_share,
    )  # fmt: skip
    return {module.__name__.rpartition(".")[2]: module for module in modules}


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """All their jobs, each named after its benchmark first."""
    return jobs_of(benchmarks(), quick)


def table(results: dict[str, dict[str, Any]]) -> str:
    """Their tables, one after the other."""
    return tables_of(benchmarks(), results)


def jobs_of(
    modules: Mapping[str, ModuleType], quick: bool
) -> dict[str, Callable[[], dict[str, Any]]]:
    """The jobs of benchmarks, each named after its benchmark first."""
    return {
        f"{name}-{job}": measure
        for name, module in modules.items()
        for job, measure in module.jobs(quick).items()
    }


def tables_of(modules: Mapping[str, ModuleType], results: dict[str, dict[str, Any]]) -> str:
    """The tables of benchmarks that have results."""
    texts = []
    for name, module in modules.items():
        own = {
            job.removeprefix(f"{name}-"): result
            for job, result in results.items()
            if job.startswith(f"{name}-")
        }
        if own:
            texts.append(f"{name.replace('_', ' ')}\n\n{module.table(own)}")
    return "\n\n".join(texts)
