"""What the states of one forward pass, and what comes with them, must look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class DifferentPointsError(ValueError):
    """Layers whose rows are not the same points: other positions, as in another resolution."""


def check_shapes(
    states: Mapping[str, Tensor],
    labels: Tensor | None,
    mask: Tensor | None,
    chosen: Tensor | None,
) -> None:
    """Refuse states that are not row by row the same points, and what does not fit them.

    Args:
        states: layer → ``(batch, positions, features)``.
        labels: ``(batch,)``, integers.
        mask: ``(batch, positions)``.
        chosen: ``(batch, k)``.

    Raises:
        DifferentPointsError: layers of different batch or positions.
        ValueError: another shape that does not fit.
        TypeError: states that are complex or whole numbers, or labels that are no integers.
    """
    shapes = {layer: tuple(state.shape) for layer, state in states.items()}
    if not shapes:
        raise ValueError("a trajectory needs the state of at least one layer; it got none.")
    if any(len(shape) != 3 for shape in shapes.values()):
        raise ValueError(f"states must be (batch, positions, features); they are {shapes}.")
    imaginary = [layer for layer, state in states.items() if state.is_complex()]
    if imaginary:
        raise TypeError(
            f"the states of {imaginary} are complex; a real operator acts on real states. "
            "Stack real and imaginary parts as features, torch.view_as_real(state).flatten(-2):"
            " the eigenvalues are those of the complex system and their conjugates."
        )
    whole = [layer for layer, state in states.items() if not state.is_floating_point()]
    if whole:
        raise TypeError(
            f"the states of {whole} are {states[whole[0]].dtype}, in which no coordinates can be "
            "computed; give floating-point numbers, such as state.float()."
        )
    if len({shape[:2] for shape in shapes.values()}) > 1:
        raise DifferentPointsError(
            f"layers disagree on (batch, positions), so their rows are not the same points: "
            f"{shapes}. Choose layers of one resolution, or flatten the positions into the "
            "features with layout='b ... -> b 1 (...)' and fit with rank=; to look at them only, "
            "average over the positions: layout='b c h w -> b c, mean over h w'."
        )
    batch, positions, _ = next(iter(shapes.values()))
    if labels is not None and tuple(labels.shape) != (batch,):
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, but the forward pass had a batch "
            f"of {batch}: give one integer per sample."
        )
    if labels is not None and labels.is_floating_point():
        raise TypeError(f"labels are {labels.dtype}; give integer classes, not scores.")
    if mask is not None and tuple(mask.shape) != (batch, positions):
        raise ValueError(
            f"the mask has shape {tuple(mask.shape)}, but states have (batch, positions) "
            f"= {(batch, positions)}."
        )
    if chosen is not None and (chosen.ndim, len(chosen)) != (2, batch):
        raise ValueError(
            f"chosen has shape {tuple(chosen.shape)}; it holds positions of each sample, "
            f"shape (batch, k) with a batch of {batch}."
        )
