"""What is measured of one block: the step from the state before it to the state after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from torchkoopman.inspecting.ranks import Rank
    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.running.ranked import RankedSpan
    from torchkoopman.spectra.normality import NonNormality
    from torchkoopman.spectra.spectrum import Spectrum


@dataclass(frozen=True)
class InspectedBlock:
    """One block, from the layer whose output it takes to the layer whose output it gives.

    What could not be measured is None; :attr:`Inspection.skipped` says why.

    Example:
        >>> block = tk.inspect(model, train.loader(500), progress=False).blocks[0]
        >>> block.start, block.end, block.r2 > 0.99, block.skip < 0
        ('1', '3', True, True)
    """

    start: str
    """The layer whose output is the state before it."""
    end: str
    """The layer whose output is the state after it."""
    span: RankedSpan | None
    """How linear it is, by R² on rows that were not fitted, and what replacing it would save."""
    surrogate: Surrogate | None
    """The best affine map from the state before to the state after, by DMD."""
    spectrum: Spectrum | None
    """That of the map."""
    rank: Rank | None
    """That of the map's linear part."""
    non_normality: NonNormality | None
    """How far powers of the map's linear part would grow beyond its eigenvalues."""

    @property
    def r2(self) -> float | None:
        """Share of the variance after the block that an affine map explains on unseen rows."""
        return None if self.span is None else self.span.r2

    @property
    def skip(self) -> float | None:
        """The share that the state before it explains by itself."""
        return None if self.span is None else self.span.skip

    @property
    def beyond_skip(self) -> float | None:
        """The share of what the block changes that an affine map explains.

        ``1 - (1 - R²) / (1 - skip R²)``. In residual networks skip R² is high, and this tells
        linear blocks from others. None where skipping explains all, or widths differ.
        """
        if self.r2 is None or self.skip is None or self.skip >= 1:
            return None
        return 1 - (1 - self.r2) / (1 - self.skip)

    @property
    def trusted(self) -> int | None:
        """How many modes the data bear out; that of the constant function is one."""
        spectrum = self.spectrum
        if spectrum is None or spectrum.residuals is None:
            return None
        return int(spectrum.trusted().sum())

    @property
    def largest(self) -> float | None:
        """Largest ``|λ|`` of the trusted modes without the constant's; None if there is none."""
        spectrum = self.spectrum
        if spectrum is None or spectrum.residuals is None:
            return None
        values = spectrum.eigenvalues[spectrum.trusted()]
        if len(values) < 2:
            return None
        constant = int((values - 1).abs().argmin())
        return max(values[k].abs().item() for k in range(len(values)) if k != constant)


@torch.no_grad()
def linear_part(surrogate: Surrogate) -> Tensor:
    """K over the span without the row and column of the constant, which hold the map's offset."""
    return surrogate.operator.matrix(1.0)[1:, 1:].double()
