"""Which sample a row is of: a number that the sample's start state decides, whenever it comes.

What judges a fit must be rows of samples that the fit has not seen. Tokens of one text are one
sample, and a second epoch brings the same samples in another order, in another batch and perhaps in
another process; so a sample is known by its states, not by when it came.

A network's states differ in their last bits from batch to batch, so bits are not compared: two
fixed random functions of the sample's first state are, to a precision that rounding seldom crosses.
They act on the floating-point mantissas, for which features of all sizes count alike. Where they
cannot tell samples apart, as with offsets thousands of deviations large, the bits decide.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchkoopman.observe.trajectory import Trajectory

_QUANTUM = {torch.float64: 2.0**-36, torch.float32: 2.0**-14}
"""Step at which a function of mantissas is read: some thousand times the rounding of states."""
_COARSE = 2.0**-8
"""The same for half precision."""
_CHUNK = 2**18
"""Numbers read at a time."""
_CLUMPED = 0.5
"""Share of a batch's samples that must be told apart, lest bits decide."""
_MOST = 16
"""Rows of one sample that are kept to test a fit; in longer samples they stand for all rows."""
_ODD = (-7046029254386353131, -4658895280553007687, -7723592293110705685)
"""Odd constants of splitmix64 (Steele, Lea & Flood 2014), as signed numbers."""

_SIZE, _EXPONENT, _HALF = 2**31 - 1, 255 << 23, 126 << 23
"""Bits of a float32 besides its sign, those of its exponent, and the exponent of a half."""


@torch.no_grad()
def sample_ids(trajectory: Trajectory) -> Tensor:
    """A number for each sample, the same whenever it comes; uniform in [0, 2⁶³), ``(batch,)``.

    Positions that do not count, such as padding, have no part in it.
    """
    state = next(iter(trajectory.states.values()))
    counted = trajectory.counted()
    quantum = _QUANTUM.get(state.dtype, _COARSE)
    weight = _functions(state.shape[-1]).to(state.device)
    # Some samples at a time: whole batches in float64 take longer, for they leave the cache.
    few = max(1, _CHUNK // max(1, state.shape[1] * state.shape[2]))
    parts = zip(torch.split(state, few), torch.split(counted, few), strict=True)
    read = torch.cat(
        [torch.nn.functional.linear(_mantissas(*part), weight).sum(1) for part in parts]
    )
    read = read / counted.sum(1).clamp(min=1)[:, None]
    cells = (read / quantum).floor().long()
    ids = mixed(mixed(cells[:, 0]) + cells[:, 1])
    if len(torch.unique(ids)) >= _CLUMPED * len(ids):
        return ids
    bits = (_cleared(state, counted) + 0.0).flatten(1).contiguous().view(torch.int64)
    places = torch.arange(bits.shape[1], device=bits.device)
    return mixed(mixed(bits + mixed(places)).sum(1))


@lru_cache(64)
def _functions(features: int) -> Tensor:
    """The two random functions, ``(2, features)``; they are a few kilobytes."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(features, 2, generator=generator, dtype=torch.float64, device="cpu")
    found: Tensor = (weight / features**0.5).T.contiguous()
    return found


def _mantissas(state: Tensor, counted: Tensor) -> Tensor:
    """Mantissas of the states, 0 where a position does not count, as ``torch.frexp`` has them."""
    if state.dtype == torch.float64 or not state.numel() or not counted.all():
        return torch.frexp(_cleared(state, counted)).mantissa
    # The exponent's bits are overwritten, in float32, where that takes a fraction of the time.
    numbers = state.float().contiguous()
    bits = numbers.view(torch.int32)
    exponents = bits & _EXPONENT
    least, most = exponents.aminmax()
    subnormal = least == 0 and exponents.count_nonzero() < (bits & _SIZE).count_nonzero()
    if most == _EXPONENT or subnormal:  # or not finite
        return torch.frexp(state.double()).mantissa
    found = (bits & ~_EXPONENT).bitwise_or_(_HALF).view(torch.float32)
    return found.double() if least > 0 else found.mul_(numbers.sign().abs_()).double()


def _cleared(state: Tensor, counted: Tensor) -> Tensor:
    """States in float64, 0 where a position does not count."""
    state = state.double()
    return state if counted.all() else torch.where(counted[..., None], state, 0.0)


def row_ids(trajectory: Trajectory) -> Tensor:
    """The number of each counted row's sample, ``(rows,)``."""
    ids = sample_ids(trajectory)
    return trajectory.flatten(ids[:, None, None].expand(-1, trajectory.positions, 1))[:, 0]


def thinned(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows to keep of a batch so that no sample has too many, and what each stands for.

    The choice depends on the sample and on a row's place in it alone.

    Args:
        ids: of each row's sample, rows of one sample side by side.

    Returns:
        index of the rows kept, and for each the rows of its sample divided by those kept.
    """
    _, counts = torch.unique_consecutive(ids, return_counts=True)
    if not len(counts) or counts.max() <= _MOST:
        return torch.arange(len(ids), device=ids.device), ids.new_ones(len(ids)).double()
    first = counts.cumsum(0) - counts
    sample = torch.repeat_interleave(torch.arange(len(counts), device=ids.device), counts)
    place = torch.arange(len(ids), device=ids.device) - first[sample]
    order = mixed(ids + mixed(place)).argsort()
    order = order[sample[order].argsort(stable=True)]  # by sample, and in each by chance
    kept = order[(torch.arange(len(ids), device=ids.device) - first[sample]) < _MOST]
    kept = kept.sort().values
    share = counts.double() / counts.clamp(max=_MOST)
    return kept, share[sample[kept]]


def mixed(numbers: Tensor) -> Tensor:
    """Numbers of which each bit depends on all bits of the given ones; int64, not negative."""
    numbers = numbers * _ODD[0]
    numbers = (numbers ^ _shifted(numbers, 30)) * _ODD[1]
    numbers = (numbers ^ _shifted(numbers, 27)) * _ODD[2]
    found: Tensor = (numbers ^ _shifted(numbers, 31)) & (2**63 - 1)
    return found


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    shifted: Tensor = (numbers >> bits) & (2 ** (64 - bits) - 1)
    return shifted
