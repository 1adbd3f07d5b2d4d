"""Which rows of a stream a bounded sample keeps: the draws of its places, and those of a merger.

Uniform over the stream (Vitter 1985, algorithm R), or with a halflife biased towards the present
(Aggarwal 2006, "On biased reservoir sampling in the presence of stream evolution").
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def uniform_places(seen: int, rows: int, capacity: int, generator: torch.Generator) -> Tensor:
    """The place each new row draws, ``(rows,)``; ``capacity`` or more means none.

    The first rows fill the places in order. Row number t then draws a place from 0 to t and is kept
    if it lies within.

    Args:
        seen: rows of the stream before these.
        rows: new ones.
        capacity: places there are.
        generator: of the draws.
    """
    order = torch.arange(seen, seen + rows)
    drawn = (_random(rows, generator) * (order + 1)).long()
    return torch.where(order < capacity, order, drawn)


def biased_places(
    seen: int, rows: int, capacity: int, halflife: float, generator: torch.Generator
) -> Tensor:
    """The same with a halflife: any place, for the rows that take part."""
    drawn = (_random(rows, generator) * capacity).long()
    share = capacity * dying(halflife)
    order = torch.arange(seen, seen + rows)
    takes_part = (_random(rows, generator) < share) | (order < capacity)
    return torch.where(takes_part, drawn, capacity)


def dying(halflife: float) -> float:
    """The probability that a path does not survive a later row."""
    return -math.expm1(-math.log(2) / halflife)


def latest(slots: Tensor, capacity: int) -> Tensor:
    """Where rows of one batch drew the same place, the last is kept and the others dropped."""
    order = torch.arange(len(slots))
    chosen, which = torch.unique(slots, return_inverse=True)
    winner = torch.full_like(chosen, -1).scatter_reduce(0, which, order, "amax")
    return torch.where(winner[which] == order, slots, capacity)


def merged_share(
    masses: tuple[float, float], paths: tuple[int, int], size: int, generator: torch.Generator
) -> int:
    """How many of ``size`` paths of two merged samples are the second's.

    Where all rows weigh 1 this is the hypergeometric draw from both streams' rows: one by one,
    without replacement. With a halflife each path is drawn from either stream by their weights.

    Args:
        masses: sum of the weights of each stream's rows; integers where all weigh 1.
        paths: number of paths in each sample.
        size: at most their sum.
        generator: of the draws.
    """
    (mine, theirs), taken = masses, 0
    one = 1 if isinstance(mine, int) else 0
    for draw in _random(size, generator).tolist():
        if draw * (mine + theirs) < theirs:
            theirs, taken = theirs - one, taken + 1
        else:
            mine -= one
    return max(size - paths[0], min(taken, paths[1]))


def _random(rows: int, generator: torch.Generator) -> Tensor:
    return torch.rand(rows, generator=generator, dtype=torch.float64)
