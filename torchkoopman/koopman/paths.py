"""Samples on their way through depth: what ``surrogate.paths`` gives, and its picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchkoopman.koopman.plotting import draw_paths
from torchkoopman.tables import Table, Tabular, qualities

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

NETWORK, SURROGATE, EDITED = "network", "surrogate", "edited"


@dataclass(frozen=True)
class Paths(Tabular):
    """Where samples are at each layer, and where a surrogate puts them from the first; print it.

    Example:
        >>> forgetful = tk.unlearn(surrogate, classes=[2], model=model)
        >>> paths = surrogate.paths(model, test.loader(500), samples=50, edited=forgetful)
        >>> paths.systems, paths.forgotten, paths.points.shape
        (('network', 'surrogate', 'edited'), (2,), torch.Size([50, 5, 3, 2]))
        >>> print(paths)
        50 samples of layer 1, forgetting [2]: in two axes of each layer's states
        layer   time  variance shown %      R²
        1      0.000             ...
        ...
    """

    layers: tuple[str, ...]
    """First in depth first."""
    times: tuple[float, ...]
    """Depth-time of each."""
    systems: tuple[str, ...]
    """``"network"``, ``"surrogate"``, and ``"edited"`` where an edited surrogate was given."""
    points: Tensor
    """Where each sample is in the layer's plane: float64, shape ``(samples, layers, systems, 2)``.
    NaN where a system says nothing of a layer: between the steps of its operator."""
    shares: Tensor
    """The share of each system's variance along the two axes, shape ``(layers, systems, 2)``."""
    r2: Tensor
    """Per layer and system, the share of the network's variance on these samples that the
    prediction explains, in all directions, shape ``(layers, systems)``; 1 for the network."""
    labels: Tensor | None
    """Class of each sample, shape ``(samples,)``, negative where unknown; None if all are."""
    forgotten: tuple[int, ...] = ()
    """Classes that the edited surrogate forgets."""

    def table(self) -> Table:
        """A row for each layer: the share of variance that the plane shows, and R²."""
        told = f", forgetting {list(self.forgotten)}" if self.forgotten else ""
        above = (
            f"{len(self.points)} samples of layer {self.layers[0]}{told}: in two axes of each "
            "layer's states"
        )
        shown = (100 * self.shares[:, 0].sum(1)).tolist()
        predicted = self.r2[1:, 1].tolist()
        known = [value for value in predicted if not math.isnan(value)]
        cells = dict(zip(known, qualities(*known), strict=True))
        r2 = ["–", *(cells.get(value, "–") for value in predicted)]
        each = zip(self.layers, self.times, shown, r2, strict=True)
        rows = [[layer, f"{time:.3f}", f"{share:.1f}", cell] for layer, time, share, cell in each]
        return Table(["layer", "time", "variance shown %", "R²"], rows, [above])

    def plot(self, ax: Axes | None = None, lines: int = 40) -> Axes:
        """Layers side by side, each in its own scale; lines follow samples through depth.

        Dots are the network's states, colored by class, rings what is predicted from the first
        layer, and crosses where the edit puts samples of the forgotten classes. A stroke leads from
        each dot to its ring, so that its length is the error in the plane.

        Args:
            ax: matplotlib axes to draw on; None for a new figure.
            lines: how many samples are followed by lines.

        Raises:
            ImportError: matplotlib is not installed (the extra ``torchkoopman[plot]``).
        """
        return draw_paths(self.points, self.layers, self.labels, self.forgotten, lines, ax)
