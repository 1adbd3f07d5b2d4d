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
    """One forgetting of classes; made by ``torchkoopman.unlearn``.

    The factors and the seconds are in no file, and after loading they are None.
    """

    classes: tuple[int, ...]
    """The classes forgotten."""
    strength: float
    """Fraction of the way they were moved."""
    target: Target
    """Where to."""
    downdated: bool
    """Whether the operator was refitted without them first."""
    seconds: float | None = None
    """What the closed form took; in no file, so that equal edits make equal files."""
    left: Tensor | None = None
    """Δ = left @ right.T; float64, shape ``(latent, points)``: one or two for each class forgotten
    so far."""
    right: Tensor | None = None
    """Float64, shape ``(latent, points)``."""
    method: Method = "redirect"
    """How: ``torchkoopman.unlearn`` redirects; a refit on other targets and LEACE are rivals."""
    halves: bool = False
    """Whether the two halves of a class had targets of their own."""

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
        """The edit that a card tells of."""
        return cls(**{**card, "classes": tuple(card["classes"])})
