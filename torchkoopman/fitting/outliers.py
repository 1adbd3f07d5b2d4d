"""Rows that no fit should follow: not finite, or a million deviations from all others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from torchkoopman.observe.warned import warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchkoopman.observe.trajectory import Trajectory

BOUND = 1e6
"""Deviations from the middle beyond which a row is left out. One such row outweighs 10¹² others in
every second moment, and no state of a working network lies there: the massive activations of
language models are some hundred to some thousand deviations away."""

_EXCEPTIONS = 0.1
"""Share of the rows that may lie beyond the bound and still be exceptions."""


def plausible(trajectories: Sequence[Trajectory]) -> Tensor:
    """Which counted rows of trajectories are finite and near the others, ``(rows,)``.

    Their samples may have different numbers of positions.

    Near means: in every layer within ``BOUND`` × the median distance of rows from the median row,
    distances by the largest feature. Medians do not move with a few rows of any size; where more
    than a tenth of the rows lie beyond, they are no exceptions and all are taken.
    """
    good = []
    for layer in trajectories[0].layers:
        rows = torch.cat([each.flatten(each.states[layer]) for each in trajectories])
        finite = rows.isfinite().all(-1)
        good.append(finite)
        if finite.any():
            known = rows[finite].double()
            distance = (rows.double() - known.median(0).values).abs().amax(-1)
            typical = distance[finite & (distance > 0)]
            if len(typical):  # else all rows are one point
                near = finite & (distance <= BOUND * typical.median())
                if (finite & ~near).sum() <= max(1, _EXCEPTIONS * int(finite.sum())):
                    good[-1] = near
    return torch.stack(good).all(0)


class Sizes:
    """Leaves out of a stream what is absurdly larger than all rows before and beside it.

    For fits that know no coordinates yet. Rows may span any number of decades, as a decaying orbit
    does; what is left out lies beyond a gap: its largest feature is more than ``BOUND`` × that of
    the next smaller row, and of every row before.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._counted = 0
        """Those of them that all processes know of since the latest sync."""
        self._largest: dict[str, float] = {}

    def found(self) -> tuple[int, dict[str, float]]:
        """Rows left out since the latest sync, and the largest row of each layer."""
        return self.left_out - self._counted, self._largest

    def with_those(self, found: Sequence[tuple[int, dict[str, float]]]) -> Sizes:
        """What all processes together know, of what each of them has :meth:`found`."""
        all_of_them = Sizes()
        all_of_them.left_out = self._counted + sum(left_out for left_out, _ in found)
        all_of_them._counted = all_of_them.left_out
        for _, largest in found:
            for layer, size in largest.items():
                known = all_of_them._largest.get(layer, 0.0)
                all_of_them._largest[layer] = max(known, size)
        return all_of_them

    def usable(self, trajectory: Trajectory) -> Trajectory:
        """The trajectory without such rows; the first of them are warned of."""
        good, limits = None, {}
        for layer, rows in trajectory.rows().items():
            if not len(rows):
                return trajectory
            largest = self._largest.get(layer, 0.0)
            least, most = torch.aminmax(rows)  # absolute, without a copy
            limits[layer] = max(-least.item(), most.item())
            if limits[layer] <= BOUND * largest or (not largest and _alike(rows, limits[layer])):
                continue  # no gap: as nearly always, and in a fraction of the time
            size = torch.maximum(rows.amax(1), -rows.amin(1)).double()
            limits[layer] = _before_a_gap(size, largest)
            fits = size <= limits[layer]  # false for what is not a number
            good = fits if good is None else good & fits
        known = self._largest
        grown = {layer: max(limit, known.get(layer, 0.0)) for layer, limit in limits.items()}
        self._largest = {**known, **grown}  # a copy made before stays as it is
        if good is None or good.all():
            return trajectory
        if not self.left_out:
            warn(
                f"{int((~good).sum())} rows are not finite or more than {BOUND:.0e} times "
                "larger than the others; the fit leaves such rows out (record.notes counts them)."
            )
        self.left_out += int((~good).sum())
        return without(trajectory, good)

    def state_dict(self) -> dict[str, Any]:
        """Rows left out, and the largest row of each layer."""
        return {"left out": [self.left_out, self._counted], "largest": dict(self._largest)}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go on from what :meth:`state_dict` said."""
        self.left_out, self._counted = state["left out"]
        self._largest = dict(state["largest"])
        return self

    def merge(self, other: Sizes) -> Self:
        """Take in what another stream has seen."""
        self.left_out += other.left_out
        for layer, size in other._largest.items():
            self._largest[layer] = max(size, self._largest.get(layer, 0.0))
        return self

    def warn_of_more_than(self, rows: int) -> None:
        """Warn where more rows were left out than there are in a fit."""
        if self.left_out > rows:
            warn(
                f"{self.left_out} rows were left out and {rows} are in the fit: they are not "
                f"finite, or {BOUND:.0e} times larger than the first that came. If those were "
                "nearly 0, as before anything was learnt, stream again to a new fitter without "
                "them."
            )

    def notes(self) -> tuple[str, ...]:
        """What a record should say of them."""
        if not self.left_out:
            return ()
        why = f"not finite, or {BOUND:.0e} times larger than the others"
        return (f"{self.left_out} rows were left out: {why}",)


def _alike(rows: Tensor, largest: float) -> bool:
    """Whether a tenth of the rows is so large by its first feature that no gap can lie above."""
    large = (rows[:, 0].double().abs() * BOUND >= largest).sum().item()
    return large > _EXCEPTIONS * len(rows) + 1


def _before_a_gap(sizes: Tensor, largest: float) -> float:
    """The largest size below the first gap, or the largest known if none is below it.

    Args:
        sizes: of rows, ``(rows,)``.
        largest: of the rows before; 0 if there were none, and then nine tenths of these are taken
            as they are.
    """
    ascending = sizes[sizes.isfinite()].sort().values
    if not len(ascending):
        return largest
    base = largest or ascending[int(0.9 * (len(ascending) - 1))].item()
    below = torch.cat([ascending.new_tensor([base]), ascending[:-1]]).clamp(min=base)
    beyond = (ascending > BOUND * below).nonzero()
    if not len(beyond):
        return ascending[-1].item()
    first = int(beyond[0])
    return ascending[first - 1].item() if first else largest


def without(trajectory: Trajectory, good: Tensor) -> Trajectory:
    """The trajectory with only those of its counted rows that are good, ``(rows,)``."""
    if good.all():
        return trajectory
    mask = trajectory.full_mask().clone()
    mask[trajectory.counted()] = good
    return replace(trajectory, mask=mask)
