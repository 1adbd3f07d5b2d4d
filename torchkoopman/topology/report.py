"""The result of ``Surrogate.topology``: curves of both systems by layer, one printable value."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from torchkoopman.pictures import MAIN, OTHER, axes_for
from torchkoopman.tables import Table, Tabular

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from torchkoopman.topology.betti import BettiCurve
    from torchkoopman.topology.clouds import Space


@dataclass(frozen=True)
class LayerTopology:
    """One layer's cloud and the surrogate's at the same depth-time."""

    layer: str
    """Name of the layer."""
    time: float
    """Depth-time."""
    curves: Mapping[int, tuple[BettiCurve, BettiCurve]]
    """Dimension → the network's curve and the surrogate's, on the same scales."""

    def relative(self, dimension: int = 0) -> float:
        """L1 distance between the curves over the area of the network's."""
        network, surrogate = self.curves[dimension]
        return network.relative(surrogate)

    def plot(self, ax: Axes | None = None, dimension: int = 0) -> Axes:
        """The network's curve and the surrogate's, with their bands.

        Raises:
            ImportError: matplotlib is not installed (the extra ``torchkoopman[plot]``).
            ValueError: there is no curve of this dimension.
        """
        if dimension not in self.curves:
            known = ", ".join(map(str, self.curves))
            raise ValueError(f"plot() got dimension={dimension!r}; there are curves of {known}.")
        network, surrogate = self.curves[dimension]
        ax = network.plot(ax, "network")
        surrogate.plot(ax, "surrogate", OTHER)
        ax.set_title(f"layer {self.layer}", fontsize=10)
        return ax

    def components(self, epsilon: float) -> tuple[int, int]:
        """β0 at ε, of the network and of the surrogate."""
        network, surrogate = self.curves[0]
        return network.at(epsilon), surrogate.at(epsilon)


@dataclass(frozen=True)
class Topology(Tabular):
    """Betti numbers and curves of a network's layers and of its surrogate; print it.

    Example:
        >>> print(surrogate.topology(
        ...     model, test.loader(500), points=200, dimensions=[0], bootstrap=0
        ... ))
        200 points, ε = 0.0... units of the states: median distance to the nearest neighbour ...
        layer   time  β0 network  β0 surrogate   β0 rel. L1
        1      0.000         ...
        9      1.000         ...
    """

    rows: int
    """Points in each cloud, the same rows in all."""
    landmarks: int
    """Points, of these, in the clouds whose loops and higher dimensions are counted."""
    epsilon: float
    """The one ε at which all β0 are counted, set by the network's first layer."""
    space: Space
    """Whether clouds hold states or latent states."""
    normalised: bool
    """Whether each cloud was divided by its RMS distance from its mean."""
    layers: tuple[LayerTopology, ...]
    """First layer first."""

    @property
    def network(self) -> list[int]:
        """β0 of the network at ε, layer by layer."""
        return [each.components(self.epsilon)[0] for each in self.layers]

    @property
    def surrogate(self) -> list[int]:
        """β0 of the surrogate at ε, layer by layer."""
        return [each.components(self.epsilon)[1] for each in self.layers]

    @property
    def unit(self) -> str:
        """What scales are measured in."""
        return "RMS radii" if self.normalised else f"units of the {self.space}"

    def simplifies(self) -> tuple[bool, bool]:
        """Whether β0 at ε never rises with depth, and ends lower: of the network, the surrogate."""
        return _falls(self.network), _falls(self.surrogate)

    def plot(self, ax: Axes | None = None) -> Axes:
        """β0 at ε with depth, of the network and of its surrogate.

        Raises:
            ImportError: matplotlib is not installed (the extra ``torchkoopman[plot]``).
        """
        ax = axes_for(ax)
        times = [each.time for each in self.layers]
        ax.plot(times, self.network, "o-", color=MAIN, label="network")
        ax.plot(times, self.surrogate, "s--", color=OTHER, label="surrogate")
        ax.set_xticks(times, [each.layer for each in self.layers])
        ax.set(xlabel="layer", ylabel="β0", ylim=(0, None))
        ax.set_title(f"components at ε = {self.epsilon:.4g}, {self.rows} points", fontsize=10)
        ax.legend(fontsize=8, frameon=False)
        return ax

    def table(self) -> Table:
        """A row for each layer."""
        dimensions = list(self.layers[0].curves)
        above = (
            f"{self.rows} points, ε = {self.epsilon:.4g} {self.unit}: median distance to the "
            "nearest neighbour in the first layer"
        )
        head = ["layer", "time", "β0 network", "β0 surrogate"]
        head += [f"β{d} rel. L1" for d in dimensions]
        rows = [
            [
                each.layer,
                f"{each.time:.3f}",
                *map(str, each.components(self.epsilon)),
                *(f"{each.relative(d):.4f}" for d in dimensions),
            ]
            for each in self.layers
        ]
        below = (
            f"β0 at ε with depth: network {_described(self.network)}; "
            f"surrogate {_described(self.surrogate)}"
        )
        return Table(head, rows, [above], [below])


def _falls(counts: Sequence[int]) -> bool:
    """Never up, and down in the end."""
    return all(later <= before for before, later in pairwise(counts)) and counts[-1] < counts[0]


def _described(counts: Sequence[int]) -> str:
    """What a sequence of counts does."""
    if _falls(counts):
        return f"falls monotonically, {counts[0]} → {counts[-1]}"
    rise = max(later - before for before, later in pairwise(counts))
    return f"does not fall monotonically, {counts[0]} → {counts[-1]}, largest rise {rise}"
