"""PyDMD's checks of delays, test_hankeldmd.py: a series' windows are the layers, rows are times.

Left out: what repeats test_dmd.py, and how reconstructions that overlap are averaged.
"""

import math

import torch
from torch import Tensor

import torchkoopman as tk
from tests.peers.checks import near, on_purpose, orbit, states


def windows(series: Tensor, delays: int) -> tk.Trajectory:
    """Layer k of row i is the state at time i + k; ``delays`` + 1 layers."""
    rows = len(series) - delays
    return tk.Trajectory.of(*(series[k : k + rows] for k in range(delays + 1)))


def reconstructed(series: Tensor, delays: int, rank: float, times: int) -> Tensor:
    """The series from its first ``delays`` states, ``(times, features)``."""
    surrogate = tk.DMDFitter(rank, delays=delays - 1).update(windows(series, delays)).surrogate
    newest_first = series[:delays].flip(0).flatten()
    ahead = orbit(surrogate, newest_first, times - delays + 1)[:, : series.shape[1]]
    return torch.cat([series[: delays - 1], ahead])


@states("PyDMD test_hankeldmd.py test_d")
def test_a_sine_is_reconstructed_from_fifty_delays() -> None:
    sine = torch.linspace(0, 10, 100, dtype=torch.float64).sin()[:, None]
    near(reconstructed(sine, 50, rank=0, times=100), sine, rtol=0, atol=0.15)
    near(reconstructed(sine, 50, rank=-1, times=100), sine, rtol=1e-5, atol=1e-8)


@states("PyDMD test_hankeldmd.py test_hankeldmd_1d")
def test_a_slow_cosine_is_reconstructed_from_five_delays() -> None:
    cosine = math.pi * torch.linspace(0, 2, 100, dtype=torch.float64).cos()[:, None]
    near(reconstructed(cosine, 5, rank=-1, times=100), cosine)


@on_purpose(
    "PyDMD test_hankeldmd.py test_hankel_2d",
    "fits are made of streamed second moments, which resolve directions down to a millionth of the "
    "largest amplitude; this reconstruction to 1e-7 needs those of 1e-9",
)
def test_two_opposite_series_are_continued_for_twenty_steps() -> None:
    x = torch.linspace(0, 10, 64, dtype=torch.float64)
    longer = torch.cat([x, x[-1] + (x[1] - x[0]) * torch.arange(1, 21)])
    wave = longer.cos() * longer.cos().sin() + (0.2 * longer).cos()
    both = torch.stack([wave, -wave], 1)
    near(reconstructed(both[:64], 30, rank=0, times=84)[32:], both[32:])
