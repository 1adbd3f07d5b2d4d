"""Systems whose Koopman eigenvalues are known: what spectra are tested on and measured beside.

Draws are independent pairs (x, y), y one step or lag after x, of the law that the system leaves
invariant (the toy and spirals have none: there x is normal, or uniform). Nothing in a draw is
approximated, and eigenvalues are derived here: for linear systems and bent ones products of those
of the matrix, for the others from the transition density. For a network with known eigenvalues see
``network.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.known.maps import Diffusion, NoisyLogisticMap
from torchkoopman.koopman.feature_maps import Monomials, RandomFeatures

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchkoopman.koopman.feature_maps import Part

Draw = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class KnownSystem:
    """A system, the eigenvalues of its Koopman operator, and a dictionary to find them with."""

    name: str
    draw: Callable[[int, int], Draw]
    """``draw(seed, rows)`` gives x and y, float64, shape ``(rows, features)``."""
    eigenvalues: Tensor
    """The leading ones, which a fit has to find; complex128, largest modulus first."""
    known: Tensor
    """Every eigenvalue of modulus above 1e-3 that the dictionary's functions can have, and 0 for
    those below: what is near none of these is wrong."""
    observables: Callable[[], list[Part]]
    """Parts of the dictionary, beside the constant and the coordinates; none for DMD."""
    rows: int = 20_000

    def errors(self, found: Tensor) -> Tensor:
        """How far each leading eigenvalue is from its nearest of ``found``, each taken once."""
        gaps = (self.eigenvalues[:, None] - found.to(self.eigenvalues)).abs()
        errors = torch.full((len(gaps),), math.inf, dtype=torch.float64)
        for _ in range(min(gaps.shape)):
            row, column = divmod(int(gaps.argmin()), gaps.shape[1])
            errors[row] = gaps[row, column]
            gaps[row], gaps[:, column] = math.inf, math.inf
        return errors

    def distances(self, found: Tensor) -> Tensor:
        """How far each of ``found`` is from the nearest eigenvalue that there is."""
        return (found.to(self.known)[:, None] - self.known).abs().amin(1)


def linear(matrix: Tensor, noise: float) -> Callable[[int, int], Draw]:
    """Draws of y = matrix · x + noise · ξ, for a normal matrix or no noise."""

    def draw(seed: int, rows: int) -> Draw:
        generator = torch.Generator().manual_seed(seed)
        x, xi = torch.randn(2, rows, len(matrix), generator=generator, dtype=torch.float64)
        if noise:
            # The invariant covariance is noise² Σ Aᵏ Aᵏᵀ, for normal A noise² (1 - A Aᵀ)⁻¹.
            precision = torch.eye(len(matrix)).to(matrix) - matrix @ matrix.T
            x = noise * x @ torch.linalg.inv(torch.linalg.cholesky(precision))
        return x, x @ matrix.T + noise * xi

    return draw


def products(own: Tensor, degree: int) -> Tensor:
    """Products of at most ``degree`` of a matrix's eigenvalues: those of its polynomials."""
    found = [
        math.prod(chosen)
        for order in range(degree + 1)
        for chosen in combinations_with_replacement(own.tolist(), order)
    ]
    return noticeable(torch.tensor(found, dtype=torch.complex128))


def noticeable(values: Tensor) -> Tensor:
    """Largest modulus first; those below 1e-3 as one 0."""
    values = values.to(torch.complex128)
    values = values[torch.argsort(values.abs(), descending=True, stable=True)]
    return torch.cat([values[values.abs() >= 1e-3], torch.zeros(1).to(values)])


def toy() -> KnownSystem:
    """The linear example of Williams, Kevrekidis & Rowley (2015); PyDMD's test_edmd."""
    matrix = torch.tensor([[0.9, -0.1], [0.0, 0.8]], dtype=torch.float64)
    known = products(torch.linalg.eigvals(matrix), degree=4)[:-1]
    draw = linear(matrix, noise=0)
    return KnownSystem("Williams' toy", draw, known[:9], known, lambda: [Monomials(4)], 500)


def bent_spiral(shear: float, bend: float, degree: int) -> KnownSystem:
    """A spiral of λ = .8 exp(±i), sheared and bent: exact, and far from normal.

    In x₁ - bend x₂² and x₂ it is linear, so its eigenvalues are products of λ. Polynomials of low
    degree miss most eigenfunctions, and a shear throws points far out of the square they start in.
    """
    cos, sin = 0.8 * math.cos(1), 0.8 * math.sin(1)
    turn = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    sheared = torch.tensor([[1, shear], [0, 1]], dtype=torch.float64)
    matrix = sheared @ turn @ torch.linalg.inv(sheared)

    def draw(seed: int, rows: int) -> Draw:
        generator = torch.Generator().manual_seed(seed)
        x = 2 * torch.rand(rows, 2, generator=generator, dtype=torch.float64) - 1
        y = (x - bend * x[:, 1:].square() * torch.eye(2)[0]) @ matrix.T
        return x, y + bend * y[:, 1:].square() * torch.eye(2)[0]

    known = products(torch.linalg.eigvals(turn), degree=31)
    name = f"spiral, sheared by {shear:g}, bent by {bend:g}"
    return KnownSystem(name, draw, known[:3], known, lambda: [Monomials(degree)], 3000)


def noisy_rotation() -> KnownSystem:
    """A rotation by .7 that shrinks by .95, with noise: one state space, no preferred axes."""
    cos, sin = 0.95 * math.cos(0.7), 0.95 * math.sin(0.7)
    matrix = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    known = products(torch.linalg.eigvals(matrix), degree=2)[:-1]
    draw = linear(matrix, noise=0.1)
    return KnownSystem("noisy rotation", draw, known[:3], known, lambda: [Monomials(2)])


def ornstein_uhlenbeck() -> KnownSystem:
    """deeptime's: dX = -X dt + ½ dW over a time of ½, whose law is exactly normal."""
    factor = math.exp(-0.5)
    spread = 0.5 * math.sqrt((1 - factor**2) / 2)
    matrix = torch.tensor([[factor]], dtype=torch.float64)
    known = products(matrix[0], degree=20)
    return KnownSystem(
        "Ornstein–Uhlenbeck", linear(matrix, spread), known[:4], known, lambda: [Monomials(5)]
    )


def quadruple_well(parts: Callable[[], list[Part]], name: str) -> KnownSystem:
    """deeptime's: two independent double wells, V = (x² - 1)² each, over a time of 1."""
    well = Diffusion(
        lambda x: 4 * (x - x**3), noise=0.5**0.5, step=5e-3, lag=200, reach=2.6, nodes=400
    )

    def draw(seed: int, rows: int) -> Draw:
        generator = torch.Generator().manual_seed(seed)
        # Both wells are equally likely, and within a well the memory fades as exp(-8 t).
        start = torch.randint(2, (rows, 2), generator=generator).double() * 2 - 1
        return well.draw(start, 800, generator)

    one = noticeable(well.eigenvalues())
    known = noticeable((one[:, None] * one).flatten())
    return KnownSystem(name, draw, known[:4], known, parts)


def prinz_potential() -> KnownSystem:
    """Kooplearn's example, in its own steps of 1e-4, observed every 100: friction .1, noise √2."""

    def drift(x: Tensor) -> Tensor:
        wells = ((3.2, 80, 0.0), (0.8, 80, 0.5), (2.0, 40, -0.5))
        force = -32 * x**7
        for depth, sharpness, place in wells:
            gap = x - place
            force = force - 2 * depth * sharpness * gap * (-sharpness * gap.square()).exp()
        return force / 0.1

    potential = Diffusion(drift, noise=2**0.5 / 0.1, step=1e-4, lag=100, reach=2, nodes=300)

    def draw(seed: int, rows: int) -> Draw:
        generator = torch.Generator().manual_seed(seed)
        start = torch.rand(rows, 1, generator=generator, dtype=torch.float64) * 2 - 1
        return potential.draw(start, 1000, generator)

    known = noticeable(potential.eigenvalues())
    return KnownSystem("Prinz potential", draw, known[:2], known, lambda: [Monomials(10)])


def noisy_logistic_map(
    parts: Callable[[], list[Part]], name: str, rows: int = 20_000
) -> KnownSystem:
    """Kooplearn's example: chaos with noise that makes the operator of finite rank."""
    system = NoisyLogisticMap()
    known = noticeable(system.eigenvalues())

    def draw(seed: int, rows: int) -> Draw:
        return system.draw(rows, torch.Generator().manual_seed(seed))

    return KnownSystem(name, draw, known[:3], known, parts, rows)


def linear_noisy() -> KnownSystem:
    """Kooplearn's test_ridge_estimator: 20 coordinates, rank 5, noise as large as the signal."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(20, 20, generator=generator, dtype=torch.float64))[0]
    own = torch.zeros(20, dtype=torch.float64)
    own[:5] = 9 * torch.logspace(-1, -3, 5, dtype=torch.float64)
    matrix = axes * own @ axes.T
    known = noticeable(torch.cat([own, torch.ones(1).to(own)]))
    return KnownSystem("linear, rank 5 of 20", linear(matrix, 1e-3), known[:3], known, list, 2000)


SYSTEMS: list[KnownSystem] = [
    toy(),
    noisy_rotation(),
    bent_spiral(shear=0, bend=1.5, degree=5),
    bent_spiral(shear=3, bend=0.1, degree=3),
    bent_spiral(shear=10, bend=0.1, degree=5),
    ornstein_uhlenbeck(),
    quadruple_well(lambda: [Monomials(8)], "quadruple well"),
    quadruple_well(lambda: [RandomFeatures(150)], "quadruple well, random features"),
    prinz_potential(),
    noisy_logistic_map(lambda: [Monomials(10)], "noisy logistic map"),
    noisy_logistic_map(
        lambda: [RandomFeatures(60)], "noisy logistic map, random features", rows=500_000
    ),
    linear_noisy(),
]
"""Every system, in the order of the table."""
