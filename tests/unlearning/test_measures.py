"""Measures of an audit: against closed forms and cases whose answer is known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.systems import normal
from torchkoopman.unlearning.measures import (
    CHANCE,
    among,
    class_accuracies,
    detection,
    divergence,
    entropies,
    membership,
)


def test_class_accuracies_are_shares_of_each_class() -> None:
    logits = torch.eye(3)[[0, 0, 1, 2, 2, 1]]
    labels = torch.tensor([0, 1, 1, 2, 2, 2])
    assert class_accuracies(logits, labels) == {0: 1.0, 1: 0.5, 2: pytest.approx(2 / 3)}


def test_among_marks_the_given_classes() -> None:
    assert among(torch.tensor([3, 1, 2, 1]), {1, 3}).tolist() == [True, True, False, True]


@given(st.integers(0, 1000), st.floats(-5, 5))
def test_divergence_is_zero_only_between_equal_answers_and_ignores_a_shift(
    seed: int, shift: float
) -> None:
    logits = normal(7, 4, seed=seed)
    assert divergence(logits, logits + shift) == pytest.approx(0, abs=1e-6)
    assert divergence(logits, normal(7, 4, seed=seed + 1)) > 0


def test_divergence_of_two_coins_is_the_closed_form() -> None:
    p, q = 0.3, 0.6
    first, second = (torch.tensor([[math.log(x), math.log(1 - x)]]) for x in (p, q))
    truth = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert divergence(first, second) == pytest.approx(truth, abs=1e-6)


def test_entropy_of_an_unsure_answer_is_the_logarithm_of_the_classes() -> None:
    assert entropies(torch.zeros(2, 5)).tolist() == pytest.approx([math.log(5)] * 2)


def test_a_classifier_sure_of_what_it_saw_gives_its_members_away() -> None:
    sure, unsure = 20 * torch.eye(3)[torch.arange(300) % 3], 0.1 * normal(300, 3)
    seen = membership(sure + normal(300, 3, seed=1), unsure, sure)
    assert seen.forgotten == 1.0
    assert seen.strength > 0.99
    assert membership(sure + normal(300, 3, seed=1), unsure, unsure).forgotten < 0.05


def test_an_attack_on_a_classifier_that_treats_all_alike_is_no_better_than_chance() -> None:
    attack = membership(normal(2000, 3), normal(2000, 3, seed=1), normal(100, 3, seed=2))
    assert attack.strength == pytest.approx(CHANCE, abs=0.05)


def test_far_away_rows_are_detected_and_equal_ones_are_not() -> None:
    target = torch.arange(600) % 5 == 0
    states = normal(600, 4) + 20 * target[:, None]
    far = detection(states[:300], target[:300], states[300:], target[300:])
    assert (far.probe, far.neighbours) == (1.0, 1.0)
    alike = detection(normal(600, 4)[:300], target[:300], normal(600, 4)[300:], target[300:])
    assert alike.probe == pytest.approx(CHANCE, abs=0.1)
    assert alike.neighbours == pytest.approx(CHANCE, abs=0.1)


def test_neighbours_see_a_ring_that_no_linear_probe_sees() -> None:
    states, angle = normal(1200, 2), torch.linspace(0, 6.28, 600)
    states[:600] = 6 * torch.stack([angle.cos(), angle.sin()], 1)
    target, order = torch.arange(1200) < 600, torch.randperm(1200, generator=torch.Generator())
    states, target = states[order], target[order]
    found = detection(states[:600], target[:600], states[600:], target[600:])
    assert found.neighbours > 0.99
    assert found.probe < 0.75
