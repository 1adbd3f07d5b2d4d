"""Edits: what was done to a surrogate's operator since the fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from torch import Tensor

    from torchkoopman.koopman.surrogate import Surrogate

Target = Literal["softmix", "nearest", "centroid"]


@dataclass(frozen=True)
class Edit:
    """One forgetting of classes; made by ``torchkoopman.unlearn``.

    The factors and the surrogate from before the edit are its undo: they are in no file, and after
    loading they are None.
    """

    classes: tuple[int, ...]
    """The classes forgotten."""
    strength: float
    """Fraction of the way their means were moved."""
    target: Target
    """Where to."""
    downdated: bool
    """Whether the operator was refitted without them first."""
    left: Tensor | None = None
    """Δ = left @ right.T; float64, shape ``(latent, classes forgotten so far)``."""
    right: Tensor | None = None
    """Float64, shape ``(latent, classes forgotten so far)``."""
    previous: Surrogate | None = None
    """The surrogate before the edit, which ``torchkoopman.revert`` gives back."""

    def card(self) -> dict[str, Any]:
        """JSON-able description."""
        return {
            "classes": list(self.classes),
            "strength": self.strength,
            "target": self.target,
            "downdated": self.downdated,
        }

    @classmethod
    def from_card(cls, card: dict[str, Any]) -> Self:
        """The edit that a card tells of, without its undo."""
        return cls(tuple(card["classes"]), card["strength"], card["target"], card["downdated"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self
