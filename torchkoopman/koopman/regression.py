"""Closed forms: linear maps from second moments by relative ridge regression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from torchkoopman.observe.moments import Moments
from torchkoopman.observe.warned import warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from torchkoopman.observe.few_rows import FewRows


_NULL = 1e-12
"""Directions with less than this share of the largest variance count as constant."""
_REGULAR = 1e-11
"""Variances no further apart than this need no ridge in float64: one of 1e-12 would bias the least
of them by a tenth, rounding does by a hundred-thousandth. Random features are further apart."""


def ridge_map(moments: Moments, ridge: float) -> tuple[Tensor, Tensor]:
    """The affine map of ``"start"`` that predicts ``"end"`` with least squared error.

    Args:
        moments: of ``"start"`` and ``"end"`` (see ``Moments.between``).
        ridge: λ relative to the mean variance of ``"start"``, so that it means the same at any
            scale and any number of rows.

    Returns:
        weight ``(features_end, features_start)`` and bias ``(features_end,)``, float64.
    """
    covariance = moments.cov("start", "start")
    weight = solve_ridge(covariance, moments.cov("start", "end"), ridge).T
    return weight, moments.mean("end") - weight @ moments.mean("start")


def ridge_map_of_rows(
    rows: FewRows, ends: tuple[str, str], ridge: float, size: int | None = None
) -> tuple[Tensor, Tensor]:
    """The same map from fewer rows than features, by the eigenvectors of their Gram matrix.

    Args:
        rows: of both variables.
        ends: names of ``"start"`` and ``"end"``.
        ridge: relative to the mean variance of what is regressed on.
        size: leading principal components of the start that are regressed on; None for all
            features.
    """
    start, end = (rows.factor(name) for name in ends)
    values, vectors = torch.linalg.eigh(start.T @ start)
    varying = values > _NULL * values[-1]
    values, vectors = values[varying], vectors[:, varying]
    features = len(start)
    if size is not None:
        values, vectors = values[-size:], vectors[:, -size:]
        features = len(values)
    kept = values + ridge * values.sum() / features
    weight: Tensor = (end @ (vectors / kept)) @ (start @ vectors).T
    return weight, rows.mean(ends[1]) - weight @ rows.mean(ends[0])


def koopman_matrix(moments: Moments, ridge: float, constant: bool) -> Tensor:
    """K with ``z_end ≈ K z_start``, float64, shape ``(latent, latent)``: EDMD's least squares.

    With ``constant`` the first coordinate of both is 1; it then carries the bias, is not
    penalised, and K's first row is exactly ``[1, 0, …]``.
    """
    if constant:
        # The constant does not vary: the others are regressed on the others, it carries the bias.
        varying = moments.cov("start", "start")[1:, 1:]
        weight = solve_ridge(varying, moments.cov("start", "end")[1:, 1:], ridge).T
        bias = moments.mean("end")[1:] - weight @ moments.mean("start")[1:]
        affine = torch.cat([bias[:, None], weight], 1)
        return torch.cat([torch.eye(1, affine.shape[1]).to(affine), affine])
    second = moments.second("start", "start")
    return solve_ridge(second, moments.second("start", "end"), ridge).T


def least_ridge(features: int, precision: torch.dtype) -> float:
    """The relative ridge that keeps rounding out of a regression and changes nothing else.

    Float32 states have rounding of 1e-7 of their size, whose square enters their moments; of
    float64 states the moments' own rounding is the larger.
    """
    if precision == torch.float64:
        return 4 * features * torch.finfo(torch.float64).eps
    return 1e-9


def best_ridge(moments: Moments, precision: torch.dtype) -> float:
    """The relative ridge of least generalised cross-validation error (Golub, Heath & Wahba 1979).

    Of powers of ten up to 1e-5, from what rounding asks for on; each latent coordinate of the end
    counts by its own variance. Noise asks for more of it, exact dynamics for none: of those that do
    equally well, as far as moments can tell, the least is taken.

    Args:
        moments: of ``"start"`` and ``"end"``, the first coordinate of both constant.
        precision: of the states.
    """
    start = moments.cov("start", "start")[1:, 1:]
    deviation = moments.cov("end", "end").diagonal()[1:].clamp(min=0).sqrt()
    varying = deviation > 1e-12 * deviation.max()
    cross = moments.cov("start", "end")[1:, 1:][:, varying] / deviation[varying]
    sizes, axes = torch.linalg.eigh(start)
    sizes, shares = sizes.clamp(min=0), (axes.T @ cross).square().sum(1)
    least = least_ridge(len(start), precision)
    if precision == torch.float64:
        least = 1e-15 if sizes[0] > _REGULAR * sizes[-1] else 1e-12
    ridges = [least, *(10.0**-power for power in range(12, 4, -1) if 10.0**-power > least)]
    scores = []
    for ridge in ridges:
        kept = sizes + ridge * sizes.mean()
        error = varying.sum() - (2 * shares / kept - sizes * shares / kept.square()).sum()
        free = 1 - (1 + (sizes / kept).sum()) / moments.count
        scores.append((error.clamp(min=0) / free.clamp(min=1e-3).square()).item())
    enough = 1.001 * min(scores) + 1e-13 * int(varying.sum())
    return next(r for r, score in zip(ridges, scores, strict=True) if score <= enough)


def pool(moments: Moments, pairs: Sequence[tuple[str, str]]) -> Moments:
    """The moments of several (start, end) pairs of variables as one stream of pairs."""
    parts = [moments.between(*pair) for pair in pairs]
    if len(parts) == 1:
        return parts[0]
    common = [pair for pair in parts[0].pairs if all(pair in part.pairs for part in parts)]
    pooled = Moments(common)
    for part in parts:
        pooled.merge(part.only(common))
    return pooled


def solve_ridge(symmetric: Tensor, right: Tensor, ridge: float) -> Tensor:
    """``(S + ridge·tr(S)/d·I)⁻¹ right`` by Cholesky.

    Where S is singular to working precision (a ridge of 0 and dependent features) the
    pseudo-inverse is taken instead, and a warning says so.
    """
    if ridge < 0:
        raise ValueError(f"ridge={ridge} must not be negative.")
    regularised = symmetric.clone()
    regularised.diagonal().add_(ridge * symmetric.diagonal().mean())
    factor, failed = torch.linalg.cholesky_ex(regularised)
    # A pivot is what a variable adds to those before it; rounding alone can keep it above zero.
    rounding = len(symmetric) * torch.finfo(symmetric.dtype).eps * regularised.diagonal()
    if not (failed.bool() | (factor.diagonal().square() <= rounding).any()).item():
        return torch.cholesky_solve(right, factor)
    warn(
        f"{len(symmetric)} observables are linearly dependent at ridge={ridge}; took the "
        "pseudo-inverse. A small ridge, such as 1e-8, makes the solution stable."
    )
    return torch.matmul(torch.linalg.pinv(regularised, hermitian=True, rtol=1e-12), right)
