"""Rows that no fit should follow: not finite, or a million deviations from all others."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.observe.trajectory import Trajectory

BOUND = 1e6
"""Deviations from the middle beyond which a row is left out. One such row outweighs 10¹² others in
every second moment, and no state of a working network lies there: the massive activations of
language models are some hundred to some thousand deviations away."""


def plausible(trajectories: Sequence[Trajectory]) -> Tensor:
    """Which counted rows of trajectories are finite and near the others, ``(rows,)``.

    Their samples may have different numbers of positions.

    Near means: in every layer within ``BOUND`` × the median distance of rows from the median row,
    distances by the largest feature. Medians do not move with a few rows of any size.
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
                good[-1] = finite & (distance <= BOUND * typical.median())
    return torch.stack(good).all(0)


class Sizes:
    """Leaves out of a stream what is absurdly larger than the rows before and beside it.

    For fits that know no coordinates yet: a row is left out if in some layer its largest feature is
    more than ``BOUND`` × the median row's, of the first batch or the largest of those since.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._typical: dict[str, float] = {}

    def usable(self, trajectory: Trajectory) -> Trajectory:
        """The trajectory without such rows; the first of them are warned of."""
        good = None
        for layer, rows in trajectory.rows().items():
            if not len(rows):
                return trajectory
            size = rows.abs().amax(1)
            beside = size.nanmedian().item()
            known = self._typical.get(layer, 0.0) or beside
            fits = size <= BOUND * known  # false for what is not a number
            good = fits if good is None else good & fits
            if not beside > BOUND * known:
                self._typical[layer] = max(known, beside)
        assert good is not None
        if good.all():
            return trajectory
        if not self.left_out:
            warnings.warn(
                f"{int((~good).sum())} rows are not finite or more than {BOUND:.0e} times "
                "larger than the others; the fit leaves such rows out (record.notes counts them).",
                RuntimeWarning,
                stacklevel=4,
            )
        self.left_out += int((~good).sum())
        return without(trajectory, good)

    def notes(self) -> tuple[str, ...]:
        """What a record should say of them."""
        if not self.left_out:
            return ()
        why = f"not finite, or {BOUND:.0e} times larger than the others"
        return (f"{self.left_out} rows were left out: {why}",)


def without(trajectory: Trajectory, good: Tensor) -> Trajectory:
    """The trajectory with only those of its counted rows that are good, ``(rows,)``."""
    if good.all():
        return trajectory
    mask = trajectory.full_mask().clone()
    mask[trajectory.full_mask()] = good
    return replace(trajectory, mask=mask)
