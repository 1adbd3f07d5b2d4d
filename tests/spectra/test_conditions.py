"""Condition numbers of eigenvalues, alone and with their neighbours."""

from __future__ import annotations

import math

import pytest
import torch

from torchkoopman.spectra.conditions import conditions


def of(matrix: torch.Tensor, within: float = 0.05) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues and their condition numbers in the metric of the identity."""
    values, V = torch.linalg.eig(matrix)
    W = torch.linalg.inv(V).mH
    return values, conditions(values, W.mH @ W, V.mH @ V, within)


def test_those_of_a_normal_operator_are_one() -> None:
    K = torch.tensor([[0.6, -0.3], [0.3, 0.6]], dtype=torch.float64)
    assert of(K)[1].tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("coupling", [0.1, 1.0, 10.0])
def test_one_apart_moves_by_its_condition_number(coupling: float) -> None:
    """Of ((a, c), (0, b)) it is √(1 + (c / (a - b))²), and the worst error reaches it."""
    K = torch.tensor([[0.9, coupling], [0.0, 0.2]], dtype=torch.float64)
    values, found = of(K)
    assert found.tolist() == pytest.approx([math.hypot(1, coupling / 0.7)] * 2)
    size = 1e-7
    _, V = torch.linalg.eig(K)
    W = torch.linalg.inv(V).mH
    worst = (W[:, :1] @ V[:, :1].mH).real
    moved = torch.linalg.eigvals(K + size * worst / torch.linalg.matrix_norm(worst, 2))
    assert (moved[0] - values[0]).abs().item() == pytest.approx(size * found[0].item(), rel=1e-3)


def test_neighbours_of_which_each_alone_is_ill_conditioned_move_together() -> None:
    K = torch.diag(torch.tensor([0.9, 0.9001, 0.3], dtype=torch.float64))
    K[0, 1] = 1e-3  # nearly one Jordan block
    alone, together = of(K, within=0)[1], of(K)[1]
    assert alone[:2].min() > 9
    assert together.tolist() == pytest.approx([1, 1, 1])


def test_each_of_equal_ones_is_judged_by_itself_and_not_by_the_others() -> None:
    """Eigenvectors are axes here, and the metric is oblique, so each has a number of its own."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    metric = A @ A.T + 0.1 * torch.eye(12, dtype=torch.float64)
    inverse = torch.linalg.inv(metric)
    alone = (metric.diagonal() * inverse.diagonal()).sqrt()
    values = torch.full((12,), 0.9, dtype=torch.complex128)
    found = conditions(values, metric.to(values), inverse.to(values), 0.05)
    assert (found <= alone * (1 + 1e-9)).all(), "those of four others at most lower it"
    assert found.unique().numel() > 1


def test_more_that_coincide_than_are_taken_together_stay_ill_conditioned() -> None:
    K = torch.diag(0.9 + 1e-3 * torch.arange(12, dtype=torch.float64))
    K += torch.diag(torch.full((11,), 0.01, dtype=torch.float64), 1)
    assert of(K)[1].max() > 2


def test_what_is_unknown_has_no_condition() -> None:
    values = torch.tensor([0.9, 0.2], dtype=torch.complex128)
    products = torch.eye(2, dtype=torch.complex128)
    products[1, 1] = torch.nan
    assert conditions(values, products, products, 0.05).tolist() == [1, torch.inf]
