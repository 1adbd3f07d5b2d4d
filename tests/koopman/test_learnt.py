"""The encoder and decoder of a Koopman autoencoder: affine maps fold in exactly."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.systems import draw, seeded
from torchkoopman.koopman.learnt import LearntObservables, SkipMLP
from torchkoopman.koopman.observables import Observables


def perceptron(inputs: int, hidden: list[int], outputs: int, seed: int = 0) -> SkipMLP:
    """One whose every tensor is random, biases and skip path too."""
    network = SkipMLP(inputs, hidden, outputs).double()
    for k, parameter in enumerate(network.parameters()):
        nn.init.normal_(parameter, generator=seeded(seed + k))
    return network


def test_a_skip_mlp_is_a_linear_path_plus_a_perceptron() -> None:
    network, x = perceptron(3, [4], 2), draw(3)
    first, last = network.mlp[0], network.mlp[2]
    hidden = []
    for k in range(4):
        value = (first.bias[k] + sum(first.weight[k, j] * x[j] for j in range(3))).item()
        hidden.append(value if value > 0 else 0.01 * value)
    for k in range(2):
        value = last.bias[k] + sum(last.weight[k, j] * hidden[j] for j in range(4))
        value += network.skip.bias[k] + sum(network.skip.weight[k, j] * x[j] for j in range(3))
        assert network(x)[k].item() == pytest.approx(value.item(), abs=1e-12)


WIDTHS = st.lists(st.integers(1, 5), max_size=3)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), WIDTHS, st.integers(1, 4), st.integers(1, 4), st.integers(0, 1000))
def test_an_affine_map_before_or_after_a_skip_mlp_folds_into_it(
    inputs: int, hidden: list[int], outputs: int, outer: int, seed: int
) -> None:
    network = perceptron(inputs, hidden, outputs, seed)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weight, bias, x = draw(inputs, outer, seed=seed), draw(inputs, seed=seed), draw(7, outer)
    direct = network(x @ weight.T + bias)
    torch.testing.assert_close(network.before((weight, bias))(x), direct, rtol=0, atol=1e-9)
    weight, bias, x = draw(outer, outputs, seed=seed), draw(outer, seed=seed), draw(7, inputs)
    direct = network(x) @ weight.T + bias
    torch.testing.assert_close(network.after((weight, bias))(x), direct, rtol=0, atol=1e-9)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_before_and_after_fold_together_in_either_order() -> None:
    network, x = perceptron(3, [4, 4], 2), draw(7, 5)
    inner, outer = (draw(3, 5), draw(3)), (draw(6, 2), draw(6))
    direct = network(x @ inner[0].T + inner[1]) @ outer[0].T + outer[1]
    torch.testing.assert_close(network.before(inner).after(outer)(x), direct)
    torch.testing.assert_close(network.after(outer).before(inner)(x), direct)


@pytest.mark.parametrize("constant", [True, False])
def test_encoding_puts_the_constant_in_front_and_decoding_takes_it_off(constant: bool) -> None:
    observables = LearntObservables(3, 5, [4], constant)
    observables.initialise(seeded())
    state = draw(2, 6, 3).float()
    latent = observables.encode(state)
    assert isinstance(observables, Observables)
    assert latent.shape == (2, 6, 5)
    assert torch.equal(latent[..., int(constant) :], observables.encoder(state))
    assert torch.equal(latent[..., 0], torch.ones(2, 6)) is constant
    learnt = observables.decoder(latent[..., int(constant) :])
    torch.testing.assert_close(observables.decode(latent), learnt)


def test_observables_with_a_constant_added_are_the_same_functions_and_one() -> None:
    plain = LearntObservables(3, 5, [4], constant=False)
    plain.initialise(seeded())
    lifted = plain.with_constant()
    state = draw(2, 6, 3).float()
    assert (lifted.latent, lifted.constant, plain.latent) == (6, True, 5)
    assert torch.equal(lifted.encode(state)[..., 1:], plain.encode(state))
    assert torch.equal(lifted.encode(state)[..., 0], torch.ones(2, 6))
    decoded = lifted.decode(lifted.encode(state)), plain.decode(plain.encode(state))
    torch.testing.assert_close(*decoded)
    assert lifted.with_constant().latent == 6


def test_initialising_follows_the_generator_and_leaves_the_global_one_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (LearntObservables(3, 5, [4]) for _ in range(3))
    first.encoder.before((draw(3, 2), draw(3)))
    first.decoder.after((draw(2, 3), draw(2)))
    first.with_constant()
    first.initialise(seeded())
    again.initialise(seeded())
    other.initialise(seeded(1))
    assert torch.equal(torch.get_rng_state(), state)
    weights, copies = first.state_dict(), again.state_dict()
    assert all(torch.equal(copies[name], value) for name, value in weights.items())
    assert not torch.equal(other.encoder.mlp[0].weight, first.encoder.mlp[0].weight)


@pytest.mark.parametrize("hidden", [[], [8], [8, 6]])
def test_the_linear_path_starts_as_the_identity_on_shared_coordinates(hidden: list[int]) -> None:
    network = SkipMLP(3, hidden, 5)
    network.initialise(seeded(), gain=0.0)
    x = draw(7, 3).float()
    assert torch.equal(network(x)[:, :3], x)
    assert network(x)[:, 3:].abs().max() == 0


def test_the_gain_scales_the_perceptron_alone() -> None:
    one, tenth = SkipMLP(3, [8], 3), SkipMLP(3, [8], 3)
    one.initialise(seeded())
    tenth.initialise(seeded(), gain=0.1)
    x = draw(7, 3).float()
    torch.testing.assert_close(tenth(x) - x, 0.1 * (one(x) - x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("constant", [True, False])
def test_learnt_observables_survive_their_configuration_and_their_tensors(constant: bool) -> None:
    observables = LearntObservables(3, 5, [4, 6], constant)
    observables.initialise(seeded())
    config = json.loads(json.dumps(observables.config()))
    restored = LearntObservables.from_config(config)
    restored.load_state_dict(observables.state_dict())
    state = draw(2, 6, 3).float()
    assert restored.config() == observables.config()
    assert torch.equal(restored.encode(state), observables.encode(state))
    latent = observables.encode(state)
    assert torch.equal(restored.decode(latent), observables.decode(latent))


@pytest.mark.parametrize(("latent", "constant"), [(0, False), (1, True)])
def test_a_latent_without_a_learnt_coordinate_is_refused(latent: int, constant: bool) -> None:
    with pytest.raises(ValueError, match=f"latent={latent} leaves no learnt coordinate"):
        LearntObservables(3, latent, [4], constant)
