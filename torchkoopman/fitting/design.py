"""What an autoencoder is made of: its operator, by the names that users give."""

from __future__ import annotations

from typing import Any

from torchkoopman.koopman.operators import FAMILIES


def family_of(operator: str, latent: int, rank: int | None) -> dict[str, Any]:
    """The configuration of an operator family, for ``operator_from_config``, but for its steps.

    Args:
        operator: name of the family; only ``Dense`` is affine.
        latent: size of the operator.
        rank: of the family ``LowRank``; None for a quarter of the size.

    Raises:
        ValueError: an unknown family, or a size without a coordinate to learn.
    """
    if operator not in FAMILIES:
        raise ValueError(f"operator={operator!r} is unknown; choose one of {list(FAMILIES)}.")
    if latent < 2:
        raise ValueError(f"latent={latent} is too small; beside the constant take 1 or more.")
    family: dict[str, Any] = {"family": operator, "latent": latent}
    if operator == "Dense":
        family["constant"] = True
    if operator == "LowRank":
        family["rank"] = rank or max(1, latent // 4)
    return family
