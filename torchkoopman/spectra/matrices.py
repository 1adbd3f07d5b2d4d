"""What is asked for its spectrum: a surrogate, known here by two of its attributes, or a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from torchkoopman.observe.class_moments import LabelledMoments


class Evolution(Protocol):
    """A linear operator family K(t)."""

    def matrix(self, time: float = 1.0) -> Tensor:
        """``K(time)``, shape ``(latent, latent)``; the whole span takes time 1."""
        ...


class System(Protocol):
    """A fitted linear system, such as a ``tk.Surrogate``."""

    @property
    def operator(self) -> Evolution:
        """K(t) on columns: ``z_end ≈ K(1) z_start``."""
        ...

    @property
    def statistics(self) -> LabelledMoments | None:
        """Moments of the latent states ``"start"`` and ``"end"`` of the span."""
        ...


def matrix_of(operator: System | Tensor, name: str = "operator") -> Tensor:
    """K over the span as float64 on the CPU, from a surrogate or a matrix; ``name`` is for errors.

    Raises:
        TypeError: something else came, or a complex matrix.
        ValueError: the matrix is empty, not square or not finite.
    """
    if not isinstance(operator, Tensor) and not hasattr(operator, "operator"):
        raise TypeError(f"{name} must be a Surrogate or a matrix; got {type(operator).__name__}.")
    matrix = operator if isinstance(operator, Tensor) else operator.operator.matrix(1.0)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ValueError(f"{name} has shape {tuple(matrix.shape)}; expected (latent, latent).")
    if matrix.is_complex():
        raise TypeError(f"{name} is {matrix.dtype}; operators on layer states are real.")
    if not matrix.isfinite().all():
        bad = int((~matrix.isfinite()).sum())
        raise ValueError(
            f"{name} has {bad} of {matrix.numel()} entries that are not finite, so it has no "
            "spectrum; see where the fit diverged."
        )
    return matrix.detach().cpu().double()
