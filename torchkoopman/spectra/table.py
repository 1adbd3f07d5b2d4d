"""A spectrum's modes as lines of text, one a mode."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

_HEAD = (
    f"{'λ (span)':>19} {'± error':>7} {'|λ|':>8} {'decay':>8} {'turns':>8} {'residual':>9} "
    f"{'closure':>8} {'energy':>7}  "
)


@dataclass(frozen=True)
class Table:
    """The columns of a spectrum's table, each of shape ``(modes,)``; None leaves one blank."""

    eigenvalues: Tensor
    measured: tuple[Tensor | None, Tensor | None, Tensor | None]
    """Standard errors, residuals and closures."""
    energies: Tensor | None
    trusted: Tensor

    def lines(self, order: Iterable[int]) -> list[str]:
        """The heading and a line for each of the modes; a ``?`` ends those that are not trusted."""
        return [_HEAD, *(self._line(k) for k in order)]

    def _line(self, k: int) -> str:
        value = self.eigenvalues[k]
        rate = value.log()
        error, residual, closure = ("" if c is None else f"{c[k]:.4f}" for c in self.measured)
        number = f"{value.real:+.4f} {value.imag:+.4f}i"
        energy = "" if self.energies is None else f"{self.energies[k]:.1%}"
        return (
            f"{number:>19} {error:>7} {value.abs():8.4f} {-rate.real:+8.4f} "
            f"{rate.imag / (2 * math.pi):+8.4f} {residual:>9} {closure:>8} {energy:>7}"
            f"{'  ' if self.trusted[k] else ' ?'}"
        )
