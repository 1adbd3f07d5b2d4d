"""Monomials: which products they are, and that they fold. Other parts: see test_observables.py."""

import itertools
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.systems import draw
from torchkoopman.koopman.feature_maps import Monomials, Neighbours
from torchkoopman.koopman.observables import Dictionary


def build(features: int, degree: int) -> Dictionary:
    return Dictionary([Monomials(degree)]).build(features).double()


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(2, 4), st.integers(0, 100))
def test_monomials_are_each_product_of_two_to_degree_coordinates_once(
    features: int, degree: int, seed: int
) -> None:
    dictionary, state = build(features, degree), draw(features, seed=seed)
    found = dictionary.encode(state[None, None])[0, 0, 1 + features :].tolist()
    powers = itertools.product(range(degree + 1), repeat=features)
    expected = [
        math.prod(float(x) ** p for x, p in zip(state, power, strict=True))
        for power in powers
        if 2 <= sum(power) <= degree
    ]
    assert sorted(found) == pytest.approx(sorted(expected), abs=1e-9)
    assert dictionary.latent == 1 + features + len(expected)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(2, 3), st.integers(0, 100))
def test_a_dictionary_with_monomials_folds_over_affine_coordinates_twice(
    features: int, inputs: int, degree: int, seed: int
) -> None:
    dictionary = Dictionary([Monomials(degree), Neighbours()]).build(features).double()
    first = draw(features, inputs, seed=seed), draw(features, seed=seed + 1)
    second = draw(inputs, 3, seed=seed + 2), draw(inputs, seed=seed + 3)
    once, outer = dictionary.folded(first)
    twice, inner = once.folded(second)
    x = draw(2, 5, 3, seed=seed + 4)
    between = x @ second[0].T + second[1]
    direct = dictionary.encode(between @ first[0].T + first[1])
    torch.testing.assert_close(once.encode(between) @ outer.T, direct)
    torch.testing.assert_close(twice.encode(x) @ (outer @ inner).T, direct)


def test_monomials_survive_configuration_tensors_and_building_anew() -> None:
    dictionary, state = build(3, 3), draw(2, 4, 3)
    restored = Dictionary.from_config(json.loads(json.dumps(dictionary.config()))).double()
    restored.load_state_dict(dictionary.state_dict())
    assert torch.equal(restored.encode(state), dictionary.encode(state))
    part = Monomials(2).build(4, None).build(3, None)
    assert part.width(3) == 6
    assert part(draw(1, 1, 3).float()).dtype == torch.float32


def test_monomials_of_no_degree_and_too_many_are_refused() -> None:
    with pytest.raises(ValueError, match=r"degree ≥ 2 .*got 1"):
        Monomials(1)
    with pytest.raises(ValueError, match=r"of 784 coordinates are 307720 functions.*lower rank"):
        Monomials(2).build(784, None)
