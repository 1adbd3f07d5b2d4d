"""Few rows of wide variables: covariances as products of the rows, which are smaller than they."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


class FewRows:
    """Means and covariances of rows that are kept: ``cov(a, b) = factor(a) @ factor(b).T``, exact.

    For fewer rows than features this takes less memory than a covariance, and the eigenvectors of
    a covariance come from a matrix of the size of the rows.

    Args:
        parts: variable → rows, ``(rows, features)``, one part of the stream after the other.
    """

    def __init__(self, parts: Sequence[Mapping[str, Tensor]]) -> None:
        self.count = sum(len(next(iter(part.values()))) for part in parts)
        self._means: dict[str, Tensor] = {}
        self._factors: dict[str, Tensor] = {}
        for name in parts[0]:
            rows = torch.cat([part[name] for part in parts]).double()
            self._means[name] = rows.mean(0)
            self._factors[name] = (rows - self._means[name]).div_(self.count**0.5).T

    def mean(self, name: str) -> Tensor:
        """Mean of a variable, float64, shape ``(features,)``."""
        return self._means[name]

    def features(self, name: str) -> int:
        """Width of a variable."""
        return len(self._means[name])

    def factor(self, name: str) -> Tensor:
        """Centred rows over the root of their number, float64, shape ``(features, rows)``."""
        return self._factors[name]
