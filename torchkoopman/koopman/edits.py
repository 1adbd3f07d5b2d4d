"""Edits: what was done to a surrogate's operator since the fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from torch import Tensor

Target = Literal["softmix", "nearest", "centroid"]
Method = Literal["redirect", "retarget", "erase"]


@dataclass(frozen=True)
class Edit:
    """One edit by which a surrogate forgets classes; made by :func:`torchkoopman.unlearn`.

    The factors and the seconds are not in files: after loading they are None.
    """

    classes: tuple[int, ...]
    """The classes forgotten."""
    strength: float
    """Fraction of the way to the target by which their means were moved."""
    target: Target
    """The target."""
    downdated: bool
    """Whether the operator was refitted without them first."""
    seconds: float | None = None
    """Seconds that the closed form took; not in files, so that equal edits make equal files."""
    left: Tensor | None = None
    """Δ = left @ right.T; float64, shape ``(latent, points)``: one or two for each class forgotten
    so far."""
    right: Tensor | None = None
    """Float64, shape ``(latent, points)``."""
    method: Method = "redirect"
    """``"redirect"`` for :func:`torchkoopman.unlearn`; the others are for comparison: a refit on
    other targets, and LEACE."""
    halves: bool = False
    """Whether each half of a class got its own target."""

    def card(self) -> dict[str, Any]:
        """JSON-able description."""
        return {
            "classes": list(self.classes),
            "strength": self.strength,
            "target": self.target,
            "downdated": self.downdated,
            "method": self.method,
            "halves": self.halves,
        }

    @classmethod
    def from_card(cls, card: dict[str, Any]) -> Self:
        """The edit that a card describes."""
        return cls(**{**card, "classes": tuple(card["classes"])})
