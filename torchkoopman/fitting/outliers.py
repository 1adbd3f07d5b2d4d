"""Rows that no fit should follow: not finite, or a million deviations from all others."""

from __future__ import annotations

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


def without(trajectory: Trajectory, good: Tensor) -> Trajectory:
    """The trajectory with only those of its counted rows that are good, ``(rows,)``."""
    if good.all():
        return trajectory
    mask = trajectory.full_mask().clone()
    mask[trajectory.full_mask()] = good
    return replace(trajectory, mask=mask)
