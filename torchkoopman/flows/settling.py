"""Iterating many starts at once: which come to rest, which run away, and which do neither."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm.auto import trange

from torchkoopman.tables import Table, Tabular

if TYPE_CHECKING:
    from torchkoopman.flows.maps import Map


@dataclass(frozen=True)
class Settled(Tabular):
    """Where each start is in the end, and whether it is at rest there; print it.

    Example:
        >>> print(tk.flows.Flow(lambda x: x * x).settle(torch.tensor([[0.5], [0.9], [2.0]])))
                   starts  share  median steps
        converged       2  66.7%             ...
        diverged        1  33.3%             ...
        undecided       0   0.0%             –
    """

    ends: Tensor
    """Last states, ``(n, …)``; those of diverged starts may not be finite."""
    converged: Tensor
    """Whether a start came to rest; bool, ``(n,)``."""
    diverged: Tensor
    """Whether it ran away; bool, ``(n,)``. Those that did neither cycle, drift, or are slow."""
    steps: Tensor
    """Applications until then; integer, ``(n,)``."""
    speeds: Tensor
    """``|f(x) - x|`` before the last application, in spreads; ``(n,)``."""
    spread: float
    """RMS distance of the starts from their mean, by which tolerances are scaled."""

    @property
    def undecided(self) -> Tensor:
        """Neither converged nor diverged; bool, ``(n,)``."""
        return ~(self.converged | self.diverged)

    def table(self) -> Table:
        """How many starts did what, and in how many steps."""
        rows = []
        for name in ("converged", "diverged", "undecided"):
            chosen = getattr(self, name)
            taken = self.steps[chosen].double()
            middle = f"{taken.median():.0f}" if len(taken) else "–"
            rows.append([name, str(int(chosen.sum())), f"{chosen.double().mean():.1%}", middle])
        return Table(["", "starts", "share", "median steps"], rows)


def settle(
    flow: Map, starts: Tensor, steps: int, tolerance: float, far: float, progress: bool
) -> Settled:
    """Iterate; states at rest or far away are left out of later steps."""
    if steps < 1 or not tolerance > 0 or not far > 0:
        raise ValueError(
            f"settling needs steps of 1 or more, and a positive tolerance and distance; got steps="
            f"{steps}, tolerance={tolerance} and far={far}."
        )
    centre, spread = spread_of(starts)
    ends = starts.clone()
    count = len(starts)
    converged = torch.zeros(count, dtype=torch.bool, device=starts.device)
    diverged = converged.clone()
    taken = torch.full((count,), steps, device=starts.device)
    speeds = torch.full((count,), torch.inf, dtype=torch.float64, device=starts.device)
    active = torch.arange(count, device=starts.device)
    with trange(steps, desc="settle", disable=not progress) as bar:
        for step in bar:
            before = ends[active]
            after = flow(before)
            ends[active] = after
            moved = (after - before).flatten(1).double().norm(dim=1) / spread
            away = (after - centre).flatten(1).double().norm(dim=1) / spread
            lost = ~(away <= far)  # NaN, too
            still = ~lost & (moved <= tolerance)
            speeds[active] = moved
            done = lost | still
            if done.any():
                converged[active[still]] = True
                diverged[active[lost]] = True
                taken[active[done]] = step + 1
                active = active[~done]
                bar.set_postfix({"left": len(active)}, refresh=False)
                if not len(active):
                    break
    return Settled(ends, converged, diverged, taken, speeds, spread)


def spread_of(starts: Tensor) -> tuple[Tensor, float]:
    """Their mean, and their RMS distance from it, or their RMS size where they are equal."""
    centre = starts.mean(0)
    flat = (starts - centre).flatten(1).double()
    spread = flat.square().sum(1).mean().sqrt().item()
    size = starts.flatten(1).double().square().sum(1).mean().sqrt().item()
    return centre, spread if spread > 1e-9 * size else (size or 1.0)
