"""What speaks against an eigenpair: its law, what is not known of λ, and its energy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from torch import Tensor

OFF = 0.05
"""How far off an eigenvalue may be and be called right."""
ENERGY = 1e-9
"""Share of the latent states below which a mode is their rounding."""
_LEEWAY = 0.1
"""The most by which a large standard error may raise the limit of the closure."""
_SELDOM = 5
"""An error of a law moves λ by its size times λ's condition at most, and seldom by more than one in
so many parts of that: it would have to lie in the worst direction. With other random features
modes of small networks with a bound below this seldom move by more than the tolerance, and many
of the others do (``tests/spectra/test_other_features.py``)."""


class Judged(Protocol):
    """What the data say of eigenpairs, ``(latent,)``: a ``Spectrum``, which documents each."""

    @property
    def moduli(self) -> Tensor:
        """|λ|."""

    @property
    def residuals(self) -> Tensor | None:
        """Error of each law row by row."""

    @property
    def energies(self) -> Tensor | None:
        """Share of each mode."""

    @property
    def errors(self) -> Tensor | None:
        """Standard error of each λ."""

    @property
    def closures(self) -> Tensor | None:
        """Error of each law in the mean."""

    @property
    def conditions(self) -> Tensor | None:
        """By how many times its size an error of each law may move λ."""


def doubts(judged: Judged, tolerance: float = OFF, energy: float = ENERGY) -> dict[str, Tensor]:
    """Which modes fail each thing that is asked; a trusted mode fails none. Bool, ``(latent,)``.

    The arguments are those of ``Spectrum.trusted``, which says what is asked.

    Raises:
        ValueError: the spectrum was made without data, or a threshold is negative or NaN.
    """
    if judged.residuals is None or judged.energies is None:
        raise ValueError(
            "this spectrum was made without data, so there are no residuals to judge its "
            "modes by; take surrogate.spectrum() of a surrogate that was fitted, and not with "
            "residuals=False, or give spectrum_of() the moments of the latent states."
        )
    if not (tolerance >= 0 and energy >= 0):
        raise ValueError(f"tolerance={tolerance}, energy={energy} must not be negative.")
    size = judged.moduli
    errors = torch.zeros_like(size) if judged.errors is None else judged.errors
    known = (errors <= tolerance * size.clamp(min=1)) & (2 * errors < size)
    lawful = judged.residuals <= tolerance * (2 * size).clamp(max=1)
    if judged.conditions is not None:
        moved = judged.residuals * judged.conditions
        lawful &= moved <= _SELDOM * tolerance
    if judged.closures is not None:
        allowed = tolerance + (3 * errors).clamp(max=_LEEWAY)
        noticed = size > tolerance + torch.hypot(judged.closures, errors)
        lawful = lawful | ((judged.closures <= allowed) & noticed)
    return {"law": ~lawful, "λ unknown": ~known, "energy": ~(judged.energies >= energy)}
