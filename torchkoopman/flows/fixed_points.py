"""Fixed points of a flow with their multipliers and basins: what was found, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.flows.drawing import Portrait, draw_field
from torchkoopman.spectra.normality import NonNormality, non_normality
from torchkoopman.tables import Table, Tabular, complex_number, more

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from torchkoopman.flows.drawing import Moving
    from torchkoopman.flows.settling import Settled


@dataclass(frozen=True)
class FixedPoints(Tabular):
    """Points with f(x) = x, and which starts led to each; print it.

    A fixed point attracts where all multipliers have moduli below 1. How fast orbits nearby come
    closer at first is bounded by the Jacobian's spectral norm instead, which for a non-normal
    Jacobian can be above 1 at a point that attracts.

    Example:
        >>> flow = tk.flows.Flow(lambda x: torch.tanh(2 * x))  # 0 repels, ±0.9575 attract
        >>> found = flow.fixed_points(torch.linspace(-1, 1, 21, dtype=torch.float64)[:, None])
        >>> print(found)
        21 starts: 21 converged (100.0%), 0 diverged, 0 undecided; 3 fixed points, 2 attract
        point  starts  radius    norm  largest multiplier  attracts
        0          10  0.1664  0.1664     +0.1664 +0.0000i       yes
        1          10  0.1664  0.1664     +0.1664 +0.0000i       yes
        2           1  2.0000  2.0000     +2.0000 +0.0000i        no
    """

    points: Tensor
    """Distinct fixed points, those that most starts lead to first; ``(points, …)``."""
    jacobians: Tensor
    """Of the map at each; float64, ``(points, k, k)``."""
    multipliers: Tensor
    """Their eigenvalues, largest modulus first; complex128, ``(points, k)``."""
    residuals: Tensor
    """``|f(x) - x|`` at each after polishing, in spreads; float64, ``(points,)``."""
    basins: Tensor
    """For each start the number of the point that it led to, -1 for none; ``(starts,)``."""
    starts: Tensor
    """Where the search began, ``(starts, …)``."""
    settled: Settled
    """How each start went; for Newton's search those at rest converged."""
    slow: Tensor
    """Distinct points where the speed is least but not zero; from Newton's search alone."""

    @property
    def radii(self) -> Tensor:
        """Largest modulus of the multipliers; below 1 a point attracts; ``(points,)``."""
        return self.multipliers.abs().amax(1) if len(self.points) else self.residuals

    @property
    def norms(self) -> Tensor:
        """Spectral norms of the Jacobians; ``(points,)``."""
        found: Tensor = torch.linalg.matrix_norm(self.jacobians, 2)
        return found

    @property
    def stable(self) -> Tensor:
        """Which points attract; bool, ``(points,)``."""
        return self.radii < 1

    @property
    def attractors(self) -> Tensor:
        """The points that attract, ``(attractors, …)``."""
        return self.points[self.stable]

    @property
    def share_converged(self) -> float:
        """Share of the starts that led to a fixed point."""
        return (self.basins >= 0).double().mean().item()

    def non_normality(self, point: int, *, horizon: int = 20) -> NonNormality:
        """How far powers of the Jacobian at a point grow beyond what its multipliers say.

        Raises:
            IndexError: there is no such point.
        """
        found: NonNormality = non_normality(self.jacobians[point], horizon=horizon)
        return found

    def rates(self, by: str = "radius") -> Tensor:
        """Applications in which an orbit near each point comes e times closer; ``(points,)``.

        ``-1 / log`` of the radius, which holds in the end, or of the ``"norm"``, which bounds every
        step (as in the latent-vector-fields paper); NaN where that is 1 or more, so that there is
        no such law.

        Raises:
            ValueError: neither ``"radius"`` nor ``"norm"``.
        """
        if by not in ("radius", "norm"):
            raise ValueError(f"by={by!r} is unknown; choose 'radius' or 'norm'.")
        factors = self.radii if by == "radius" else self.norms
        return torch.where(factors < 1, -1 / factors.log(), torch.nan)

    def plot(
        self,
        flow: Moving,
        ax: Axes | None = None,
        *,
        orbits: int = 0,
        steps: int = 100,
        readout: Tensor | None = None,
    ) -> Axes:
        """A phase portrait: velocity, points that attract (filled) and others (rings), slow points.

        States of two numbers are drawn as they are. Of more numbers, points and orbits are seen
        along the two leading principal axes of the starts, as the axes say, and no velocity is
        drawn, for what moves in a plane among many does not stay there.

        Args:
            flow: whose fixed points these are.
            ax: matplotlib axes to draw on; None for a new figure.
            orbits: of so many of the starts.
            steps: of each orbit.
            readout: weight of a linear read-out, ``(outputs, states)``: the direction in which each
                output grows, as an arrow.

        Raises:
            ImportError: matplotlib is not installed (the extra ``torchkoopman[plot]``).
            ValueError: states of one number, or a read-out of other states.
        """
        portrait = Portrait(self.starts, self.points, self.stable, self.slow)
        return draw_field(flow, portrait, ax, orbits, steps, readout)

    def table(self, points: int = 10) -> Table:
        """A row for each point."""
        all_of, told = len(self.basins), self.settled
        found = f"{len(self.points)} fixed points, {int(self.stable.sum())} attract"
        slow = f", {len(self.slow)} slow points" if len(self.slow) else ""
        converged = int((self.basins >= 0).sum())
        unpolished = int(told.converged.sum()) - converged
        stuck = f", {unpolished} at rest where Newton finds no fixed point" if unpolished else ""
        above = (
            f"{all_of} starts: {converged} converged ({converged / all_of:.1%}){stuck}, "
            f"{int(told.diverged.sum())} diverged, {int(told.undecided.sum())} undecided; "
            f"{found}{slow}"
        )
        norms = self.norms
        rows = [
            [
                str(k),
                str(int((self.basins == k).sum())),
                f"{self.radii[k]:.4f}",
                f"{norms[k]:.4f}",
                complex_number(complex(self.multipliers[k, 0])),
                "yes" if self.stable[k] else "no",
            ]
            for k in range(min(points, len(self.points)))
        ]
        head = ["point", "starts", "radius", "norm", "largest multiplier", "attracts"]
        return Table(head, rows, [above], more(len(self.points), points))
