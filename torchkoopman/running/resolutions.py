"""Layers of several resolutions: which of them have rows that are the same points."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from torchkoopman.observe.names import split_call
from torchkoopman.observe.selection import per_layer, select
from torchkoopman.running.ranked import UnrankedSpan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.observe.trajectory import Trajectory
    from torchkoopman.observe.watch import Watch


@dataclass(frozen=True)
class Resolutions:
    """The layers that a watch means, by the positions of their states."""

    watches: tuple[Watch, ...]
    """One for the layers of each number of positions, if there are two or more."""
    unranked: tuple[UnrankedSpan, ...]
    """The pairs of layers whose positions differ."""


class _Points:
    """Keeps the number of positions of each layer, in the order in which they come."""

    contextual = False

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def update(self, trajectory: Trajectory) -> None:
        """Take the layers of a trajectory."""
        self.of |= dict.fromkeys(trajectory.layers, trajectory.positions)


def resolutions(watch: Watch, batch: Any) -> Resolutions:
    """What one batch says of a watch's layers, each of which is watched by itself.

    Raises:
        DifferentPointsError: calls of one module have different positions.
    """
    points = _Points()
    names = [name for each in select(watch.model, watch.layers) for name in each.required]
    first, *others = (replace(_of(watch, [name], names), positions=None) for name in names)
    first.stream([batch], points, [(each, points) for each in others])
    together: dict[int, list[str]] = {}
    for layer, positions in points.of.items():
        together.setdefault(positions, []).append(layer)
    groups = [layers for layers in together.values() if len(layers) > 1]
    unranked = tuple(
        UnrankedSpan(
            start,
            end,
            f"their rows are other points, {points.of[start]} and {points.of[end]} positions of a "
            "sample; tk.fit takes such a span with layout='b ... -> b 1 (...)' and rank=",
        )
        for start, end in combinations(points.of, 2)
        if points.of[start] != points.of[end]
    )
    return Resolutions(tuple(_of(watch, layers, names) for layers in groups), unranked)


def _of(watch: Watch, layers: Sequence[str], names: Sequence[str]) -> Watch:
    """A watch of some of the layers, read as they are among all of them."""
    modules = {name: split_call(name)[0] for name in (*names, *layers)}
    calls = [name for name in names if "#" in name]
    found: dict[str, Any] = {}
    for option in ("layout", "output"):
        known = per_layer(getattr(watch, option), modules.values(), option, calls)
        chosen = {layer: known.get(layer, known.get(modules[layer])) for layer in layers}
        found[option] = {layer: each for layer, each in chosen.items() if each is not None} or None
    return replace(watch, layers=list(layers), **found)
