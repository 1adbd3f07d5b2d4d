"""The attractors of a flow at one step of a training, and what became of those before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchkoopman.flows.memory import chamfer
from torchkoopman.tables import Table, Tabular, more

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchkoopman.flows.fixed_points import FixedPoints
    from torchkoopman.flows.flow import Flow


@dataclass(frozen=True)
class FlowLook(Tabular):
    """Attractors that named sets of starts lead to; print it. A :class:`FlowMonitor` takes them.

    An attractor is followed from one look to the next by the flow itself: where the attractor was,
    the new flow starts, and where that comes to rest is what became of it. Where several come to
    one, the nearest is followed on, and the others are gone.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> monitor = tk.flows.FlowMonitor(tk.flows.Flow, {"noise": torch.randn(20, 2)})
        >>> with monitor.attach(model):  # which looks at step 0
        ...     look = monitor.latest
        >>> look.step, look.names, look.reached.shape == (1, len(look.attractors))
        (0, ('noise',), True)
    """

    step: int
    """Of the training."""
    names: tuple[str, ...]
    """Of the sets of starts."""
    attractors: Tensor
    """Points that attract and that a start leads to, ``(attractors, …)``, on the CPU."""
    tracks: Tensor
    """Number of each, the same at all looks at which it lives; ``(attractors,)``."""
    moved: Tensor
    """Distance of each from where it was at the look before, in spreads; NaN for those that are
    new; float64, ``(attractors,)``."""
    gone: Tensor
    """Numbers of those that lived at the look before and live no more."""
    radii: Tensor
    """Largest modulus of the multipliers of each; float64, ``(attractors,)``."""
    norms: Tensor
    """Spectral norm of the Jacobian at each; float64, ``(attractors,)``."""
    basins: Tensor
    """Number of each set's starts that lead to each attractor, ``(names, attractors)``."""
    converged: Tensor
    """Share of each set's starts that come to a fixed point; float64, ``(names,)``."""
    diverged: Tensor
    """Share that runs away; the others cycle, drift, or are slow."""
    chamfer: Tensor
    """Chamfer distance between the sets' attractors, in spreads; NaN beside a set without any;
    float64, ``(names, names)``."""
    spread: float
    """RMS distance of all starts from their mean, by which distances are told."""
    known: int
    """Attractors followed until now, with those that are gone."""

    @property
    def reached(self) -> Tensor:
        """Which set of starts leads to which attractor; bool, ``(names, attractors)``."""
        return self.basins > 0

    @property
    def born(self) -> Tensor:
        """Numbers of those that are new, at the first look all."""
        return self.tracks[self.moved.isnan()]

    def attractors_from(self, name: str) -> Tensor:
        """Those that a set of starts leads to, ``(n, …)``.

        Raises:
            ValueError: there is no such set.
        """
        if name not in self.names:
            raise ValueError(f"the looks are from starts {self.names}, not {name!r}.")
        return self.attractors[self.reached[self.names.index(name)]]

    def table(self, attractors: int = 10) -> Table:
        """A row for each attractor, those that most starts lead to first."""
        counts = self.reached.sum(1).tolist()
        shares = zip(
            self.names, counts, self.converged.tolist(), self.diverged.tolist(), strict=True
        )
        told = "; ".join(
            f"{name}: {count} attractors, {here:.1%} converged, {away:.1%} diverged"
            for name, count, here, away in shares
        )
        lived = f"{len(self.born)} born, {len(self.gone)} gone"
        above = f"step {self.step}: {len(self.tracks)} attractors, {lived}; {told}"
        order = self.basins.sum(0).argsort(descending=True, stable=True).tolist()
        rows = [
            [
                str(int(self.tracks[k])),
                *(str(int(each)) for each in self.basins[:, k]),
                f"{self.radii[k]:.4f}",
                f"{self.norms[k]:.4f}",
                "born" if self.moved[k].isnan() else f"{self.moved[k]:.4f}",
            ]
            for k in order[:attractors]
        ]
        head = ["attractor", *(f"from {name}" for name in self.names), "radius", "norm", "moved"]
        return Table(head, rows, [above], more(len(order), attractors))


def look_at(
    flow: Flow,
    starts: Mapping[str, Tensor],
    step: int,
    before: FlowLook | None,
    steps: int,
    options: Mapping[str, Any],
) -> FlowLook:
    """Find the attractors that starts lead to, and what became of those of the look before."""
    own = torch.cat(list(starts.values()))
    old = own[:0] if before is None else before.attractors.to(own)
    found = flow.fixed_points(torch.cat([own, old]), steps, **options)
    spread = found.settled.spread
    sizes = [len(each) for each in starts.values()]
    of_starts, of_old = found.basins[: len(own)], found.basins[len(own) :]
    counts = torch.stack([_counted(each, found) for each in torch.split(of_starts, sizes)])
    kept = (found.stable & (counts.sum(0) > 0)).nonzero().flatten()
    points = found.points[kept]
    number = torch.full((len(found.points) + 1,), -1, device=kept.device)
    number[kept] = torch.arange(len(kept), device=kept.device)
    tracks, moved = _followed(points, old, number[of_old], before, spread)
    basins = counts[:, kept]
    away = torch.split(found.settled.diverged[: len(own)], sizes)
    both = zip(torch.split(of_starts, sizes), away, strict=True)
    told = [[(b >= 0).double().mean().item(), d.double().mean().item()] for b, d in both]
    shares = torch.tensor(told, dtype=torch.float64)
    former = torch.zeros(0, dtype=torch.long) if before is None else before.tracks
    return FlowLook(
        step=step,
        names=tuple(starts),
        attractors=points.cpu(),
        tracks=tracks,
        moved=moved,
        gone=former[~torch.isin(former, tracks)],
        radii=found.radii[kept].cpu(),
        norms=found.norms[kept].cpu(),
        basins=basins.cpu(),
        converged=shares[:, 0],
        diverged=shares[:, 1],
        chamfer=_distances(points, basins > 0, spread),
        spread=spread,
        known=max([-1, *tracks.tolist(), *([] if before is None else [before.known - 1])]) + 1,
    )


def _counted(basins: Tensor, found: FixedPoints) -> Tensor:
    return torch.bincount(basins[basins >= 0], minlength=len(found.points))


def _followed(
    points: Tensor, old: Tensor, became: Tensor, before: FlowLook | None, spread: float
) -> tuple[Tensor, Tensor]:
    """The number of each attractor, and how far it has moved, on the CPU.

    Args:
        points: attractors now.
        old: those before.
        became: for each of these the position in ``points`` of what became of it, or -1.
        before: the look before.
        spread: unit of distances.
    """
    tracks = torch.full((len(points),), -1)
    moved = torch.full((len(points),), torch.nan, dtype=torch.float64)
    known = 0
    if before is not None:
        known = before.known
        led = (became >= 0).nonzero().flatten()
        far = (points[became[led]] - old[led]).flatten(1).double().norm(dim=1) / spread
        for k in far.argsort(descending=True, stable=True).tolist():  # the nearest comes last
            at = int(became[led[k]])
            tracks[at], moved[at] = before.tracks[int(led[k])], far[k]
    new = (tracks < 0).nonzero().flatten()
    tracks[new] = known + torch.arange(len(new))
    return tracks, moved


def _distances(points: Tensor, reached: Tensor, spread: float) -> Tensor:
    """Chamfer distances between the sets' attractors, in spreads."""
    count = len(reached)
    found = torch.full((count, count), torch.nan, dtype=torch.float64)
    for a in range(count):
        for b in range(a, count):
            if reached[a].any() and reached[b].any():
                far = 0.0 if a == b else chamfer(points[reached[a]], points[reached[b]]) / spread
                found[a, b] = found[b, a] = far
    return found
