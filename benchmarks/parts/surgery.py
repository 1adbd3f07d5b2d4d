"""Swaps as the bench counts them: architectures people have, and networks made to break a swap."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.hostile import suite as hostile
from benchmarks.tables import markdown
from benchmarks.zoo import suite as zoo
from benchmarks.zoo.families import FAMILIES
from benchmarks.zoo.fitted import examine_fitted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.hostile.case import Case
    from benchmarks.zoo.family import Family

TOLERANCE = 1e-6
"""Relative differences from the reference that rounding explains."""
KINDS = (*hostile.FINE, "silent", "gradients")


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """The two kinds of networks; of each a few in a quick bench."""
    some, few = (FAMILIES[::20], hostile.CASES[::60]) if quick else (FAMILIES, hostile.CASES)
    return {"zoo": partial(families, some), "hostile": partial(networks, few)}


def families(chosen: Sequence[Family]) -> dict[str, Any]:
    """A random linear map, and a surrogate fitted to the span, swapped into every family."""
    warnings.simplefilter("ignore")  # of the libraries behind
    logging.disable(logging.WARNING)
    counts: Counter[str] = Counter()
    differences, fitted = [], []
    for family in chosen:
        if family.missing:
            counts["missing"] += 1
            continue
        found = zoo.examine(family)
        counts["refused" if found.refused else "swapped"] += 1
        counts["changed"] += not found.untouched
        if not found.refused:
            counts["restored"] += found.restored
            differences.append(found.difference)
            after = examine_fitted(family)
            if not (after.refused or after.unfitted):
                fitted.append(after.difference)
    return {"families": len(chosen), **counts, "differences": differences, "fitted": fitted}


def networks(chosen: Sequence[Case]) -> dict[str, Any]:
    """Every hostile network by ``how="auto"``, and its harmless twin."""
    logging.disable(logging.WARNING)
    counts = Counter(hostile.verdicts(case, "auto")[0] for case in chosen)
    twins = [case.harmless() for case in chosen if case.twin]
    exact = sum(hostile.verdicts(twin, "auto")[0] == "exact" for twin in twins)
    return {"networks": len(chosen), **counts, "twins": len(twins), "twins exact": exact}


def headlines(results: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Architectures swapped, and hostile networks swapped wrongly."""
    rows = []
    if found := results.get("zoo"):
        agree = sum(gap <= TOLERANCE for gap in found["differences"])
        what = "architectures: swapped and equal to the reference; refused by name"
        rows.append((what, f"{agree}; {found.get('refused', 0)} of {found['families']}"))
    if found := results.get("hostile"):
        wrong = found.get("silent", 0) + found.get("gradients", 0)
        rows.append(
            (
                "networks made to break a swap: silently wrong; harmless twins exact",
                f"{wrong} of {found['networks']}; {found['twins exact']} of {found['twins']}",
            )
        )
    return rows


def table(results: dict[str, dict[str, Any]]) -> str:
    """One row for the families and one for the networks."""
    texts = []
    if zoo_found := results.get("zoo"):
        agree = sum(gap <= TOLERANCE for gap in zoo_found["differences"])
        head = [
            "families",
            "swapped",
            "agree",
            "swapped back bit by bit",
            "refused",
            "fitted, agree",
        ]
        also = sum(gap <= TOLERANCE for gap in zoo_found["fitted"])
        counts = [zoo_found["swapped"], agree, zoo_found.get("restored", 0)]
        cells = [zoo_found["families"], *counts, zoo_found.get("refused", 0), also]
        texts.append(markdown(head, [[str(cell) for cell in cells]]))
    if found := results.get("hostile"):
        head = ["hostile networks", *KINDS, "harmless twins", "of these exact"]
        counts = [found.get(kind, 0) for kind in KINDS]
        cells = [found["networks"], *counts, found["twins"], found["twins exact"]]
        texts.append(markdown(head, [[str(cell) for cell in cells]]))
    return "\n\n".join(texts)
