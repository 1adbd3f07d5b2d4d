"""Dictionaries of observables against slow loops, and their folding against itself unfolded."""

import json
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.systems import draw
from torchkoopman.koopman.feature_maps import (
    ContextMean,
    Monomials,
    Neighbours,
    Part,
    RandomFeatures,
)
from torchkoopman.koopman.observables import Dictionary, Observables

Make = Callable[[], Part]

PARTS: dict[str, Make] = {
    "random": lambda: RandomFeatures(7, 0.5),
    "monomials": lambda: Monomials(2),
    "mean": ContextMean,
    "causal mean": lambda: ContextMean(causal=True),
    "neighbours": Neighbours,
    "past": lambda: Neighbours([-1, -3]),
}
CAUSAL = ["random", "causal mean", "past"]


def build(*parts: str, features: int = 3, seed: int = 0) -> Dictionary:
    dictionary = Dictionary([PARTS[part]() for part in parts])
    return dictionary.build(features, torch.Generator().manual_seed(seed)).double()


def mask_of(batch: int, positions: int, seed: int = 0) -> Tensor:
    """A random mask that counts the first position of every sample."""
    mask = draw(batch, positions, seed=seed) > 0
    mask[:, 0] = True
    return mask


@pytest.mark.parametrize("parts", [(), ("random",), ("mean", "neighbours"), tuple(PARTS)])
def test_a_dictionary_is_the_constant_then_the_state_then_its_parts(parts: tuple[str, ...]) -> None:
    dictionary, state = build(*parts), draw(2, 5, 3)
    latent = dictionary.encode(state)
    assert isinstance(dictionary, Observables)
    assert latent.shape == (2, 5, dictionary.latent)
    assert dictionary.constant
    assert torch.equal(latent[..., 0], torch.ones(2, 5).double())
    assert torch.equal(latent[..., 1:4], state)
    at = 4
    for part in dictionary.parts:
        width = part.width(3)
        assert torch.equal(latent[..., at : at + width], part(state))
        at += width
    assert at == dictionary.latent
    assert torch.equal(dictionary.decode(latent), state)
    torch.testing.assert_close(latent @ dictionary.decoding_matrix().double().T, state)


def test_random_features_are_the_tanh_of_affine_functions() -> None:
    dictionary, state = build("random"), draw(1, 1, 3)
    part = dictionary.parts[0]
    for k in range(7):
        argument = part.bias[k] + sum(part.weight[k, j] * state[0, 0, j] for j in range(3))
        assert part(state)[0, 0, k].item() == pytest.approx(argument.tanh().item(), abs=1e-12)


def test_arguments_of_random_features_spread_as_their_scale() -> None:
    """States of mean square 1 per coordinate: Var(W c + b) = scale² + scale²."""
    part = RandomFeatures(4000, 0.7).build(6, torch.Generator().manual_seed(0))
    state = draw(50, 6).float()
    state = state / state.square().mean().sqrt()
    arguments = state @ part.weight.T + part.bias
    assert arguments.square().mean().item() == pytest.approx(2 * 0.7**2, rel=0.05)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_context_mean_is_the_mean_of_counted_states(causal: bool, masked: bool) -> None:
    state = draw(4, 6, 3)
    mask = mask_of(4, 6) if masked else None
    found = ContextMean(causal)(state, mask)
    for b in range(4):
        for p in range(6):
            until = range(p + 1) if causal else range(6)
            counted = [state[b, q] for q in until if mask is None or mask[b, q]]
            torch.testing.assert_close(found[b, p], torch.stack(counted).mean(0))


def test_what_is_masked_counts_for_nothing_even_if_it_is_not_finite() -> None:
    state, mask = draw(4, 6, 3), mask_of(4, 6)
    spoilt = torch.where(mask[..., None], state, torch.nan)
    for causal in (False, True):
        part = ContextMean(causal)
        assert torch.equal(part(spoilt, mask)[mask], part(state, mask)[mask])
    assert torch.equal(Neighbours()(spoilt, mask)[mask], Neighbours()(state, mask)[mask])


def test_a_sample_without_counted_positions_has_a_finite_context() -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    for causal in (False, True):
        assert ContextMean(causal)(draw(2, 3, 4), nothing).isfinite().all()


@pytest.mark.parametrize("offsets", [(-1, 1), (-2,), (3, -1), (9, -9)])
@pytest.mark.parametrize("masked", [False, True])
def test_neighbours_are_the_states_at_the_offsets(offsets: tuple[int, ...], masked: bool) -> None:
    state = draw(4, 6, 3)
    mask = mask_of(4, 6) if masked else None
    found = Neighbours(offsets)(state, mask).unflatten(-1, (len(offsets), 3))
    for b in range(4):
        for p in range(6):
            for k, offset in enumerate(offsets):
                q = p + offset
                known = 0 <= q < 6 and (mask is None or bool(mask[b, q]))
                assert torch.equal(found[b, p, k], state[b, q if known else p])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(CAUSAL), max_size=3), st.integers(1, 7), st.booleans())
def test_no_future_position_changes_a_past_output_of_causal_parts(
    parts: list[str], future: int, masked: bool
) -> None:
    dictionary, state = build(*parts), draw(2, 8, 3)
    mask = mask_of(2, 8) if masked else None
    changed = state.clone()
    changed[:, future:] += 10
    before = dictionary.encode(state, mask)[:, :future]
    assert torch.equal(dictionary.encode(changed, mask)[:, :future], before)


def test_what_is_not_causal_does_see_the_future() -> None:
    state = draw(2, 8, 3)
    changed = state.clone()
    changed[:, 4:] += 10
    for part in ("mean", "neighbours"):
        dictionary = build(part)
        assert not torch.equal(dictionary.encode(changed)[:, :4], dictionary.encode(state)[:, :4])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(list(PARTS)), max_size=4),
    st.integers(1, 4),
    st.integers(1, 5),
    st.booleans(),
    st.integers(0, 1000),
)
def test_a_dictionary_of_affine_coordinates_is_a_matrix_times_a_dictionary(
    parts: list[str], features: int, inputs: int, masked: bool, seed: int
) -> None:
    """ψ(W x + b) = T ψ'(x) for any parts, widths and masks."""
    dictionary = build(*parts, features=features, seed=seed)
    weight, bias = draw(features, inputs, seed=seed), draw(features, seed=seed + 1)
    x, mask = draw(2, 5, inputs, seed=seed + 2), mask_of(2, 5, seed) if masked else None
    folded, transfer = dictionary.folded((weight, bias))
    assert (folded.features, transfer.shape) == (inputs, (dictionary.latent, folded.latent))
    direct = dictionary.encode(x @ weight.T + bias, mask)
    torch.testing.assert_close(folded.encode(x, mask) @ transfer.T, direct, rtol=0, atol=1e-9)


def test_folding_leaves_the_dictionary_as_it_is() -> None:
    dictionary, state = build(*PARTS), draw(2, 5, 3)
    before = dictionary.encode(state)
    dictionary.folded((draw(3, 2), draw(3)))
    assert torch.equal(dictionary.encode(state), before)
    assert dictionary.features == 3


def test_random_features_follow_their_generator_and_leave_the_global_one_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, again, other = build("random"), build("random"), build("random", seed=1)
    first.folded((draw(3, 2), draw(3)))
    Dictionary.from_config(first.config())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.parts[0].weight, again.parts[0].weight)
    assert torch.equal(first.parts[0].bias, again.parts[0].bias)
    assert not torch.equal(first.parts[0].weight, other.parts[0].weight)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(list(PARTS)), max_size=4), st.integers(1, 5))
def test_a_dictionary_survives_its_configuration_and_its_tensors(
    parts: list[str], features: int
) -> None:
    dictionary = build(*parts, features=features, seed=5)
    config = json.loads(json.dumps(dictionary.config()))
    restored = Dictionary.from_config(config).double()
    restored.load_state_dict(dictionary.state_dict())
    state = draw(2, 5, features)
    assert restored.config() == dictionary.config()
    assert torch.equal(restored.encode(state), dictionary.encode(state))


def test_encoding_follows_the_dtype_of_the_state() -> None:
    assert build(*PARTS).float().encode(draw(1, 2, 3).float()).dtype == torch.float32
    assert build(*PARTS).encode(draw(1, 2, 3)).dtype == torch.float64


@pytest.mark.parametrize("arguments", [(0, 1.0), (-3, 1.0), (5, 0.0), (5, -1.0)])
def test_random_features_without_number_or_scale_are_refused(
    arguments: tuple[int, float],
) -> None:
    with pytest.raises(ValueError, match="count ≥ 1 and scale > 0"):
        RandomFeatures(*arguments)


@pytest.mark.parametrize("offsets", [(), (0,), (-1, 0, 1)])
def test_neighbours_at_no_or_zero_offset_are_refused(offsets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be non-zero integers"):
        Neighbours(offsets)
