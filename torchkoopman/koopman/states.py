"""What counts as states of a layer where a surrogate is asked what it makes of them."""

from __future__ import annotations

import torch
from torch import Tensor


def require_states(state: Tensor, layer: str, features: int, mask: Tensor | None) -> None:
    """Refuse what is no state of a layer, and a mask of other positions.

    Raises:
        TypeError: no tensor of real floats, or a mask that is not bool.
        ValueError: another shape than ``(batch, positions, features)``, or a mask of another than
            ``(batch, positions)``.
    """
    if not isinstance(state, Tensor) or not state.is_floating_point():
        kind = state.dtype if isinstance(state, Tensor) else type(state).__name__
        raise TypeError(f"states of {layer!r} must be a tensor of real floats; got {kind}.")
    if state.ndim != 3 or state.shape[-1] != features:
        raise ValueError(
            f"states of {layer!r} have shape {tuple(state.shape)}; expected (batch, positions, "
            f"{features}). Rows without positions become states by state[:, None]."
        )
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a bool tensor, true where a position counts; got {kind}.")
    if mask.shape != state.shape[:2]:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)} for states of shape {tuple(state.shape)}; "
            "expected (batch, positions)."
        )
