"""The data of other libraries' tests, made anew: times or samples first, float64."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.stats import special_ortho_group
from torch import Tensor


def tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


# PyDMD


def toy() -> tuple[Tensor, Tensor, Tensor]:
    """test_edmd.py: x, J x and J of Williams' linear toy, 500 normal points of seed 42."""
    J = torch.tensor([[0.9, -0.1], [0.0, 0.8]], dtype=torch.float64)
    x = tensor(np.random.default_rng(42).standard_normal((2, 500)).T)
    return x, x @ J.T, J


def pulses() -> Tensor:
    """input_sample.npy: sech(x + 3) e^{2.3 i t} + 2 sech(x) tanh(x) e^{2.8 i t}, complex128,
    15 times from 0 to 4π and 400 points of [-10, 10], shape ``(15, 400)``."""
    x = torch.linspace(-10, 10, 400, dtype=torch.float64)
    t = torch.linspace(0, 4 * math.pi, 15, dtype=torch.float64)[:, None]
    return torch.exp(2.3j * t) / torch.cosh(x + 3) + 2 * torch.exp(2.8j * t) * (
        torch.tanh(x) / torch.cosh(x)
    )


def four_points() -> tuple[Tensor, Tensor]:
    """test_dmd.py test_predict: the same pulses at 4 points of [-2, 2] and 10 times from 0 to 4π,
    and at the times one step later; complex128, shape ``(10, 4)``."""
    x = torch.linspace(-2, 2, 4, dtype=torch.float64)
    t = torch.linspace(0, 4 * math.pi, 10, dtype=torch.float64)[:, None]

    def at(time: Tensor) -> Tensor:
        first = torch.exp(2.3j * time) / torch.cosh(x + 3)
        return first + 2 * torch.exp(2.8j * time) * torch.tanh(x) / torch.cosh(x)

    return at(t), at(t + t[1])


def side_by_side(values: Tensor) -> Tensor:
    """Complex features as twice as many real ones."""
    return torch.cat([values.real, values.imag], -1)


def turning() -> Tensor:
    """test_fbdmd.py: 100 times of a matrix of determinant 1 that turns by 30°, from (.5, 1)."""
    A = torch.tensor([[1.0, 1.0], [-1.0, 2.0]], dtype=torch.float64) / math.sqrt(3)
    return powers(A, torch.tensor([0.5, 1.0], dtype=torch.float64), 100)


def centre() -> tuple[Tensor, Tensor, Tensor]:
    """test_xyinput.py: A = [1 -2; 1 -1], its flow from (1, .1) every .01, 2 000 times, and the
    time derivative by second-order differences."""
    A = torch.tensor([[1.0, -2.0], [1.0, -1.0]], dtype=torch.float64)
    flow = torch.linalg.matrix_exp(0.01 * A)
    states = powers(flow, torch.tensor([1.0, 0.1], dtype=torch.float64), 2000)
    return A, states, differences(states, 0.01)


LORENZ_POINT = torch.tensor([-math.sqrt(72), -math.sqrt(72), 27.0], dtype=torch.float64)
"""test_lando.py: a fixed point of the Lorenz system, σ = 10, ρ = 28, β = 8/3."""
LORENZ_JACOBIAN = torch.tensor(
    [
        [-10.0, 10.0, 0.0],
        [1.0, -1.0, math.sqrt(72)],
        [-math.sqrt(72), -math.sqrt(72), -8 / 3],
    ],
    dtype=torch.float64,
)


def lorenz() -> tuple[Tensor, Tensor]:
    """test_lando.py: 10 000 states of the Lorenz system every .001 from (-8, 8, 27), and their
    derivatives by second-order differences."""

    def velocity(_: float, s: np.ndarray) -> list[float]:
        return [10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]]

    times = np.arange(0, 10, 0.001)
    options = {"method": "LSODA", "rtol": 1e-12, "atol": 1e-12}
    solved = solve_ivp(velocity, (0, times[-1]), (-8, 8, 27), t_eval=times, **options)
    states = tensor(solved.y.T)
    return states, differences(states, 0.001)


def differences(states: Tensor, step: float) -> Tensor:
    """Time derivative by differences of second order, also at both ends."""
    return torch.gradient(states, spacing=step, dim=0, edge_order=2)[0]


# deeptime


def orthogonal_orbit() -> tuple[Tensor, Tensor]:
    """test_dmd.py toy_data: a random orthogonal A of size 25, and 500 states of its orbit."""
    random = np.random.default_rng(0)
    A = tensor(np.linalg.qr(random.normal(size=(25, 25)))[0])
    return A, powers(A, tensor(random.uniform(-1, 1, size=25)), 500)


def symmetric_map() -> tuple[Tensor, Tensor]:
    """test_edmd.py: 1 000 points of a cube in 4 dimensions, and a symmetric matrix of eigenvalues
    0, 1, 2, 3 that acts on rows."""
    random = np.random.default_rng(0)
    points = random.uniform(-1, 1, size=(1000, 4))
    axes = np.linalg.qr(random.normal(size=(4, 4)))[0]
    return tensor(points), tensor(axes * np.arange(4.0) @ axes.T)


def fading() -> Tensor:
    """test_vamp.py full_rank_time_series: 1 001 states of a symmetric matrix of eigenvalues
    1/8 … 8/8, from 100 000 times the vector of ones; 7 directions vary."""
    axes = np.linalg.qr(np.random.RandomState(42).normal(size=(8, 8)))[0]
    K = tensor(axes * (np.arange(1, 9) / 8) @ axes.T)
    return powers(K.T, torch.full((8,), 1e5, dtype=torch.float64), 1001)


CHAIN = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
"""test_vamp.py TestVAMPModel: a Markov chain of three states."""


def jumps(steps: int = 10_000, runs: int = 20) -> Tensor:
    """Series of the chain's states, one of three features being 1 at a time,
    ``(runs, steps, 3)``."""
    random = np.random.default_rng(0)
    state = np.zeros(runs, dtype=int)
    visited = []
    for _ in range(steps):
        visited.append(state)
        state = (random.random(runs)[:, None] > CHAIN.cumsum(1)[state]).sum(1)
    return torch.eye(3, dtype=torch.float64)[tensor(np.stack(visited, 1))]


def ellipsoids(steps: int) -> Tensor:
    """``deeptime.data.ellipsoids``: a lazy chain of two states, seen as ellipsoids."""
    random = np.random.default_rng(13)
    state = np.cumsum(random.random(steps) < 0.03) % 2
    shape = np.linalg.cholesky(np.array([[5.7, 5.65], [5.65, 5.7]]))
    centres = np.array([[0.0, 0.0], [0.0, 5.0]])
    return tensor(centres[state] + random.normal(size=(steps, 2)) @ shape.T)


# kooplearn


def noisy_series() -> Tensor:
    """test_ridge_estimator.py: 51 states from 0 of a system of rank 5 in 20 dimensions, noise
    1e-3."""
    own = np.concatenate([9 * np.logspace(-3, -1, 5), np.zeros(15)])
    axes = special_ortho_group(20, 0).rvs(1)
    A = axes * own @ axes.T
    random = np.random.default_rng(0)
    states = [np.zeros(20)]
    for _ in range(50):
        states.append(A @ states[-1] + 1e-3 * random.standard_normal(20))
    return tensor(np.stack(states))


def powers(matrix: Tensor, start: Tensor, times: int) -> Tensor:
    """``start``, matrix · start, matrix² · start …, ``(times, features)``."""
    states = [start]
    for _ in range(times - 1):
        states.append(matrix @ states[-1])
    return torch.stack(states)
