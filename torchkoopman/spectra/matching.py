"""Which eigenvalue of one spectrum is which of the next: optimal assignment in conjugate pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from torch import Tensor

    from torchkoopman.spectra.spectrum import Spectrum

Match = tuple[int, int]

_TICKS = 2.0**30
"""Costs are compared in these parts of 1."""


def by_value(spectrum: Spectrum) -> list[int]:
    """Largest modulus first, and of equal ones by value: a spectrum's own order means nothing."""
    values = spectrum.eigenvalues.tolist()
    return sorted(
        range(len(values)), key=lambda k: (-abs(values[k]), -values[k].real, -values[k].imag)
    )


def match(before: Spectrum, after: Spectrum, weight: float, gate: float) -> list[Match]:
    """Pairs (index before, index after) of least cost, closed under conjugation."""
    distance = (before.eigenvalues[:, None] - after.eigenvalues).abs()
    cost = distance.clone()
    if len(before.modes) == len(after.modes):
        cost += weight * (1 - (before.modes.mH @ after.modes).abs().clamp(max=1))
    # Having no match costs as much as the worst match allowed, so no pair beyond it is chosen.
    cost[distance > gate] = gate + weight
    # Conjugates tie. In binary fractions sums are exact, so that rounding does not break the tie.
    cost = (cost * _TICKS).round() / _TICKS
    allowed = distance <= gate
    found: list[Match] = []
    partners = [_conjugates(spectrum) for spectrum in (before, after)]
    reals = [[k for k, other in pairs.items() if other == k] for pairs in partners]
    uppers = [
        [k for k in pairs if spectrum.eigenvalues[k].imag > 0]
        for spectrum, pairs in zip((before, after), partners, strict=True)
    ]
    for i, j in _assign(cost, allowed, uppers[0], uppers[1]):
        found += [(i, j), (partners[0][i], partners[1][j])]
    found += _assign(cost, allowed, reals[0], reals[1])
    # What is left may have changed kind: two real eigenvalues met and became a pair, or parted.
    rest = [
        [k for k in pairs if k not in {match[side] for match in found}]
        for side, pairs in enumerate(partners)
    ]
    return found + _assign(cost, allowed, rest[0], rest[1])


def _assign(cost: Tensor, allowed: Tensor, rows: list[int], columns: list[int]) -> list[Match]:
    """The allowed part of the optimal assignment of some rows to some columns."""
    part = cost[rows][:, columns].numpy()
    chosen = zip(*linear_sum_assignment(part), strict=True)
    pairs = [(rows[i], columns[j]) for i, j in chosen]
    return [(i, j) for i, j in pairs if allowed[i, j]]


def _conjugates(spectrum: Spectrum) -> dict[int, int]:
    """Index of each eigenvalue → index of its conjugate; a real one is its own."""
    values = spectrum.eigenvalues
    upper = (values.imag > 0).nonzero().flatten().tolist()
    lower = (values.imag < 0).nonzero().flatten().tolist()
    partners = {k: k for k in (values.imag == 0).nonzero().flatten().tolist()}
    cost = (values[upper].conj()[:, None] - values[lower]).abs()
    cost += 1 - (spectrum.modes[:, upper].mT @ spectrum.modes[:, lower]).abs().clamp(max=1)
    for i, j in zip(*linear_sum_assignment(cost.numpy()), strict=True):
        partners |= {upper[i]: lower[j], lower[j]: upper[i]}
    return {k: partners[k] for k in by_value(spectrum)}
