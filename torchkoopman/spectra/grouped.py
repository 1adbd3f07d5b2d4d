"""Rows that belong together: means, variances and predictions that leave out all of a sample.

Rows of a fit that fade are here as often as they weigh in it, so that means need no weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

_WHOLE = 1 - 1e-3
"""A sample of at least this leverage alone shows some direction: no other sample predicts it."""
_CHUNK = 2**22
"""Numbers worked on at a time."""


@dataclass(frozen=True)
class Grouped:
    """Which rows are of one sample."""

    order: Tensor
    """Rows, those of one sample side by side; index, ``(rows,)``."""
    sizes: Tensor
    """Rows of each sample, ``(samples,)``."""
    shares: Tensor
    """How many rows each stands for, ``(rows,)``, in the order in which rows are given."""
    weights: Tensor
    """Of each in the fit, at most 1, in the same order; as likely is it to be here."""

    @classmethod
    def of(
        cls,
        rows: int,
        samples: Tensor | None,
        shares: Tensor | None,
        weights: Tensor | None = None,
    ) -> Self:
        """The groups of ``rows`` rows; without ``samples`` each row is a group of its own."""
        numbers = torch.arange(rows) if samples is None else samples.cpu()
        numbers, order = numbers.sort(stable=True)
        sizes = torch.unique_consecutive(numbers, return_counts=True)[1]
        known = (torch.ones(rows) if each is None else each.cpu() for each in (shares, weights))
        return cls(order, sizes, *(each.double() for each in known))

    def independent(self, rows: float) -> float:
        """As many rows that weigh alike say as much as rows whose weights sum to ``rows``."""
        return rows / self.mean(self.weights).item()

    def mean(self, values: Tensor) -> Tensor:
        """Mean over rows, ``(rows, …)`` to ``(…,)``, each as often as it stands for one."""
        mean: Tensor = torch.tensordot(self.shares.to(values), values, 1) / self.shares.sum()
        return mean

    def variance(self, scores: Tensor, rows: float, functions: int) -> Tensor:
        """The variance of the mean of scores over all rows, ``(rows, n)`` to ``(n,)``.

        It counts independent samples. Infinite with one of them, which tells nothing of others, or
        with no more than there are functions, which fit any.

        Args:
            scores: error times regressor.
            rows: that the fit has seen, or the sum of their weights.
            functions: that it has.
        """
        count = len(self.sizes)
        samples = count * self.independent(rows) / self.shares.sum().item()
        if count < 2 or samples <= functions:
            return torch.full(scores.shape[1:], torch.inf, dtype=torch.float64)
        free = (1 - 1 / count) * (1 - functions / samples)
        squares = self._squares(scores * self.weights.sqrt().to(scores)[:, None])
        return squares / (self.shares.sum() * rows * free)

    def deviation(self, values: Tensor) -> Tensor:
        """The standard error of :meth:`mean`; rows of one sample count together."""
        count = len(self.sizes)
        squares = self._squares(values - self.mean(values))
        return (squares * count / max(count - 1, 1)).sqrt() / self.shares.sum()

    def _squares(self, values: Tensor) -> Tensor:
        """Sum over samples of the square of a sample's sum, ``(rows, n)`` to ``(n,)``, float64.

        Of a sample of N rows k are here, and those that are not vary by themselves: each square
        stands for N/k, each product of two rows for N(N - 1) / k(k - 1) (Horvitz & Thompson 1952).
        Products are few and chance may bring them below 0; all rows say no less than those here.
        """
        here = self.sizes.double()[:, None]
        all_rows = self._sums(self.shares[:, None])
        each = all_rows / here
        squares = self._sums(values.abs().square().double())
        together = self._sums(values).abs().square().double()
        pairs = each * (all_rows - 1) / (here - 1).clamp(min=1)
        alone = torch.where(here > 1, each, each.square())  # one stands for rows like itself
        found = (alone * squares + pairs * (together - squares)).sum(0)
        return torch.maximum(found, (each * together).sum(0))

    def _sums(self, values: Tensor) -> Tensor:
        """Over the rows of each sample, ``(rows, n)`` to ``(samples, n)``."""
        count = len(self.sizes)
        which = torch.repeat_interleave(torch.arange(count), self.sizes)
        return (
            torch.zeros(count, values.shape[1]).to(values).index_add_(0, which, values[self.order])
        )

    def without_own(self, errors: Tensor, ends: Tensor, roots: Tensor) -> Tensor:
        """Errors of a least-squares fit as they would be without the row's sample.

        In directions that only this sample has shown the fit without it says 0, so that the error
        is all there is, however exact the fit with it was.

        Args:
            errors: of the fit with all rows, ``(rows, n)``.
            ends: what was to be predicted, of the same shape.
            roots: ``start G^(-1/2) / √n``, so that their products are leverages, real,
                ``(rows, features)``.
        """
        masses = (self.shares * self.weights).sqrt()
        roots = roots * masses[:, None]
        unseen = errors.clone()
        first = self.sizes.cumsum(0) - self.sizes
        for size in torch.unique(self.sizes).tolist():
            places = first[self.sizes == size][:, None] + torch.arange(size)
            if size == 1:
                alone = self.order[places[:, 0]]
                leverage = roots[alone].square().sum(1)[:, None]
                known = errors[alone] / (1 - leverage.clamp(max=_WHOLE))
                unseen[alone] = torch.where(leverage > _WHOLE, ends[alone], known)
                continue
            for some in torch.split(places, max(1, _CHUNK // (size * roots.shape[1]))):
                rows = self.order[some]
                U, S, _ = torch.linalg.svd(roots[rows], full_matrices=False)
                leverage = S.square()[..., None]
                weights = masses[rows][..., None].to(errors)
                own, all_of_it = (
                    U.to(errors).mT @ (each[rows] * weights) for each in (errors, ends)
                )
                known = own / (1 - leverage.clamp(max=_WHOLE))
                change = torch.where(leverage > _WHOLE, all_of_it, known) - own
                unseen[rows] = errors[rows] + (U.to(errors) @ change) / weights
        return unseen
