"""The tests of ``make quick``: of each room those that say most in a few seconds."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
QUICK = {
    ".": ("datasets", "house", "tables"),
    "benchmarks": ("evidence",),
    "fitting": ("dmd", "edmd", "losses", "quality"),
    "flows": ("flow",),
    "graphs": ("cut", "reads", "side_effects", "writing"),
    "inspecting": ("runs",),
    "integrations": ("events",),
    "koopman": ("coordinates", "feature_maps", "files", "folding", "operators", "surrogate"),
    "observe": ("facts", "layouts", "moments", "probes", "selection", "trajectory", "views"),
    "panels": ("modules", "page"),
    "plots": ("functions",),
    "running": ("baselines", "evaluation"),
    "scaling": ("scale",),
    "shipping": ("weights",),
    "showing": ("series",),
    "spectra": ("normality", "pseudospectrum", "spectrum", "tracking"),
    "storage": ("logs", "states", "tensor_files", "whole"),
    "surgery": ("passage", "swap"),
    "topology": ("persistence",),
    "unlearning": ("edit", "neutral"),
}
"""Folder → its files that are run; together some forty seconds of one processor."""


def is_quick(path: Path) -> bool:
    """Whether a file of tests is one of them."""
    folder = str(path.parent.relative_to(HERE))
    return path.stem.removeprefix("test_") in QUICK.get(folder, ())


def left_out() -> dict[str, list[str]]:
    """Folder → its files that are not run, all of them."""
    found: dict[str, list[str]] = {}
    for path in sorted(HERE.rglob("test_*.py")):
        if not is_quick(path):
            folder = str(path.parent.relative_to(HERE.parent))
            found.setdefault(folder, []).append(path.stem.removeprefix("test_"))
    return found
