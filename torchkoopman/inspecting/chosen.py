"""The layers that are inspected, and those that are not, each with the reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LISTED = 12
"""Names that a sentence lists."""


@dataclass(frozen=True)
class Skipped:
    """Something that was not measured."""

    what: str
    """The measure, or the layer."""
    why: str
    """What stood against it."""


@dataclass(frozen=True)
class Chosen:
    """The layers to inspect, in the order in which they run."""

    layers: tuple[str, ...]
    """Names, with ``#k`` for a call of several."""
    widths: tuple[int, ...]
    """Features of each."""
    positions: int
    """Positions of a sample in each."""
    said: str
    """Which they are and how they were found, in a sentence."""
    skipped: tuple[Skipped, ...] = ()
    """Layers that were left out."""
    notes: tuple[str, ...] = ()
    """What may be wrong about how they are read."""


def thinned(chosen: Chosen, count: int) -> Chosen:
    """``count`` of the layers, evenly through depth, the first and the last among them."""
    last = len(chosen.layers) - 1
    kept = sorted({round(k * last / (count - 1)) for k in range(count)})
    out = [name for k, name in enumerate(chosen.layers) if k not in kept]
    why = "all pairs of layers together would need too much memory; give layers= of fewer"
    return replace(
        chosen,
        layers=tuple(chosen.layers[k] for k in kept),
        widths=tuple(chosen.widths[k] for k in kept),
        skipped=(*chosen.skipped, Skipped(f"layers {listed(out)}", why)),
    )


def listed(names: Sequence[str]) -> str:
    """The first dozen of some names, and how many more there are."""
    shown = ", ".join(names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"
