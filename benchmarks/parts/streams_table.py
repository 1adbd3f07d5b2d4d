"""The table of the part on residual streams."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.tables import markdown, spread


def table(results: dict[str, dict[str, Any]]) -> str:
    """What became of the starts, by decoder, map and start."""
    runs = list(results.values())
    rows = []
    for key in runs[0]["maps"]:
        own = [run["maps"][key] for run in runs]
        shares = [spread([each[what] for each in own]) for what in ("converged", "diverged")]
        counts = [spread([each[what] for each in own], 1) for what in ("attractors", "distinct")]
        letters = [spread([each[what] for each in own]) for what in ("own letters", "next letters")]
        sizes = [_short([each[what] for each in own]) for what in ("growth", "speed")]
        rows.append([*key.split("; "), *shares, *sizes, *counts, *letters])
    head = ["decoder", "map", "from", "converged", "diverged", "size", "speed", "attractors"]
    head += ["distinct texts", "own letters", "next letters"]
    right = ", ".join(
        f"{name} {spread([100 * run['right'][name] for run in runs], 1)} %"
        for name in runs[0]["right"]
    )
    key = "trained; all blocks, norm; text"
    said = [f"“{word}”" for run in runs for word in run["maps"][key]["decoded"][:2]]
    below = [f"Next letters of unseen text that are right: {right}."]
    if said:
        below.append(
            f"Attractors of all trained blocks are decoded to, for example, {', '.join(said)}."
        )
    return "\n\n".join([markdown(head, rows), *below])


def _short(values: list[float]) -> str:
    """The median, to two digits and without powers of ten where it is large."""
    middle = float(f"{median(values):.2g}")
    return f"{middle:.0f}" if middle >= 10 else f"{middle:g}"
