"""What every part of a dictionary is: some functions of a state's coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

if TYPE_CHECKING:
    import torch

Affine = tuple[Tensor, Tensor]
"""``(weight, bias)`` of ``x ↦ weight @ x + bias``."""


class Part(nn.Module):
    """Some of a dictionary's functions of a state ``(batch, positions, coordinates)``.

    Where ``affine_in_state``, a part L satisfies ``L(W x + b) = W L(x) + b`` for each of its copies
    of the state, so that a layer's coordinates can be folded away.
    """

    affine_in_state = True
    contextual = False  # a position's functions depend on that position alone

    def width(self, features: int) -> int:
        """Number of functions for states of ``features`` coordinates."""
        raise NotImplementedError

    def build(self, features: int, generator: torch.Generator | None) -> Self:
        """Fix what depends on the number of coordinates; called once."""
        return self

    def folded(self, inner: Affine) -> Part:
        """The part that takes ``x`` and gives what this one gives for ``weight @ x + bias``.

        For parts affine in the state this is the part itself, the affine map moving behind it.
        """
        return self

    def config(self) -> dict[str, Any]:
        """JSON-able arguments of the constructor."""
        return {}
