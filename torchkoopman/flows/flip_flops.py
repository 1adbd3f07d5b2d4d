"""Flip-flops of several bits: hold the latest amplitude of each input, forever.

The task of Sussillo & Barak (2013), with the amplitudes of Kim et al. (2023): fixed, or drawn anew
for each pulse from a square, a rectangle, a disk, a ring or four points, so that a network that
solves it has a continuous attractor of that shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Shape = Literal["fixed", "square", "rectangle", "disk", "ring", "points"]
_TOGETHER = ("disk", "ring", "points")
"""Shapes whose coordinates depend on each other: all inputs get their pulses together."""
_NARROW = 0.5
"""Height of the rectangle over its width."""
_HOLE = 0.5
"""Inner radius of the ring over its outer one."""


@dataclass(frozen=True)
class FlipFlops:
    """Inputs of trials, and what should be held.

    Example:
        >>> trials = tk.flows.flip_flops(500, bits=2, shape="disk")
        >>> trials.inputs.shape, bool(trials.targets.norm(dim=2).max() <= 1)
        (torch.Size([100, 500, 2]), True)
    """

    inputs: Tensor
    """Pulses, 0 between them; ``(times, trials, bits)``."""
    targets: Tensor
    """The latest pulse of each input, 0 before the first; ``(times, trials, bits)``."""
    shape: Shape
    """Which amplitudes pulses have."""


def flip_flops(
    trials: int,
    *,
    bits: int = 2,
    shape: Shape = "square",
    times: int = 100,
    pulses: float = 12.0,
    width: int = 3,
    generator: torch.Generator | None = None,
) -> FlipFlops:
    """Trials of the flip-flop task.

    Each input has a Poisson number of pulses at random times; a later pulse cuts off an earlier
    one. ``"fixed"`` amplitudes are 1 or -1; those of the other shapes are uniform within the square
    from -1 to 1, a rectangle of half the height, the disk of radius 1, the ring between the radii
    0.5 and 1, or one of four points (±1, ±1), where the inputs get their pulses together.

    Example:
        >>> trials = tk.flows.flip_flops(10, bits=3, shape="fixed")
        >>> sorted(trials.targets.unique().tolist())
        [-1.0, 0.0, 1.0]

    Args:
        trials: how many.
        bits: inputs; 2 for rectangle, disk, ring and points.
        shape: of the amplitudes.
        times: steps of a trial.
        pulses: mean number of pulses in a trial, of each input.
        width: steps of a pulse.
        generator: draws everything; None for one seeded with 0.

    Raises:
        ValueError: an unknown shape, another number of bits, or counts below 1.
    """
    if shape not in get_args(Shape):
        raise ValueError(f"shape={shape!r} is unknown; choose one of {', '.join(get_args(Shape))}.")
    if bits != 2 and shape not in ("fixed", "square"):
        raise ValueError(f"the shape {shape!r} has two coordinates, and bits={bits}; give bits=2.")
    counted = {"trials": trials, "bits": bits, "times": times, "width": width}
    for name, count in counted.items():
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"flip_flops() got {name}={count!r}; give a whole number.")
    if min(counted.values()) < 1 or not 0 <= pulses < math.inf:
        raise ValueError(
            f"flip_flops() got trials={trials}, bits={bits}, times={times}, width={width} and "
            f"pulses={pulses}; give 1 or more of each, and a finite number of pulses."
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    inputs = torch.zeros(times, trials, bits)
    targets = torch.zeros(times, trials, bits)
    groups = [range(bits)] if shape in _TOGETHER else [[bit] for bit in range(bits)]
    for group in groups:
        counts = torch.poisson(torch.full((trials,), float(pulses)), generator=generator).int()
        most = int(counts.max())
        starts = torch.randint(times, (most, trials), generator=generator)
        amplitudes = _amplitudes(shape, most, trials, bits, generator)
        # In the order of time: a later pulse replaces what an earlier one left.
        order = starts.masked_fill(torch.arange(most)[:, None] >= counts, times).argsort(0)
        starts = starts.masked_fill(torch.arange(most)[:, None] >= counts, times).gather(0, order)
        clock = torch.arange(times)[:, None]
        for number in range(most):
            begin = starts[number]
            amplitude = amplitudes[number]
            held = clock >= begin
            on = held & (clock < begin + width)
            for bit in group:
                inputs[..., bit] = torch.where(on, amplitude[:, bit], inputs[..., bit] * ~held)
                targets[..., bit] = torch.where(held, amplitude[:, bit], targets[..., bit])
    return FlipFlops(inputs, targets, shape)


def _amplitudes(
    shape: Shape, pulses: int, trials: int, bits: int, generator: torch.Generator
) -> Tensor:
    """``(pulses, trials, bits)``."""
    uniform = 2 * torch.rand(pulses, trials, bits, generator=generator) - 1
    if shape in ("fixed", "points"):
        return torch.where(uniform < 0, -1.0, 1.0)
    if shape == "rectangle":
        return uniform * torch.tensor([1.0, _NARROW])
    if shape in ("disk", "ring"):
        inner = _HOLE if shape == "ring" else 0.0
        share = (uniform[..., 0] + 1) / 2
        radius = (inner**2 + share * (1 - inner**2)).sqrt()  # uniform by area
        angle = math.pi * uniform[..., 1]
        return radius[..., None] * torch.stack([angle.cos(), angle.sin()], -1)
    return uniform
