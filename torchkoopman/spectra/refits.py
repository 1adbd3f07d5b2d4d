"""Other fits of the same system, to other rows: how far sampling alone moves what is compared.

Two things are of the rows. A regression on n of them has the error N^½ Z / √n in axes in which the
start is white, N being the covariance of what it leaves unexplained and Z standard normal (errors
of one size everywhere, rows that are independent). And these axes themselves come from the rows:
the start's second moment errs as that of n states that are spread as normal ones are. Where little
is left unexplained, that is nearly all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from torchkoopman.spectra.resolvents import excited

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Refits:
    """What other fits of a system are drawn from, all in axes in which its start is white."""

    matrix: Tensor
    """K on the functions compared, ``(axes, axes)``."""
    noise: Tensor
    """Root of the covariance of what the regression leaves unexplained of a row."""
    mean: Tensor
    """Of the start, ``(axes,)``; its length is 1 where one of the functions is constant."""
    sizes: Tensor
    """Second moments of the start along the axes before they were made 1, ``(axes,)``."""
    rows: float
    """Number of rows that the system was fitted to."""
    rank: int
    """Directions at most of which K is compared."""
    less_identity: bool
    """Whether K - I is compared."""

    def drawn(self, rows: float, generator: torch.Generator) -> Tensor:
        """K of a fit to so many other rows, in axes that are white for these."""
        count, shape = math.sqrt(rows), self.matrix.shape
        Z, H = torch.randn((2, *shape), generator=generator, dtype=torch.float64)
        h = torch.randn(len(self.mean), generator=generator, dtype=torch.float64)
        matrix = self.matrix + self.noise @ Z / count
        eye = torch.eye(len(self.mean)).to(matrix)
        spread, axes = torch.linalg.eigh(eye - torch.outer(self.mean, self.mean))
        varied = axes * spread.clamp(min=0).sqrt() @ axes.T
        shifted = torch.outer(self.mean, varied @ h)
        error = (shifted + shifted.T + varied @ (H + H.T) @ varied / math.sqrt(2)) / count
        second = eye + error + error @ error / 2  # positive however few the rows
        scales = self.sizes.sqrt()
        directions, sizes = excited(scales[:, None] * second * scales, self.rank)
        whiten = scales[:, None] * directions / sizes.sqrt()
        found: Tensor = whiten.T @ matrix @ second @ whiten
        return found - torch.eye(len(found)).to(found) if self.less_identity else found
