"""The whole path on the Koopman-autoencoder paper's Yin-Yang network, held to what it must show."""

import pytest
import torch
from torch import nn

import torchkoopman as tk
from benchmarks.networks import ResidualMLP, accuracy, class_accuracies, train
from torchkoopman.datasets import Split, yin_yang

LAYERS = "blocks.*"
DOT = 2


@pytest.fixture(scope="module")
def split() -> Split:
    return yin_yang(seed=7)


@pytest.fixture(scope="module")
def network(split: Split) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = ResidualMLP(4, 10, 5, 3)
    return train(model, split.train, epochs=500, batch=500, rate=0.03, seed=7)


@pytest.fixture(scope="module")
def autoencoder(network: nn.Module, split: Split) -> tk.Surrogate:
    loader = split.train.loader(500, seed=7)
    return tk.fit(network, loader, LAYERS, progress=False)


@pytest.mark.slow
def test_the_blocks_are_worth_replacing(network: nn.Module, split: Split) -> None:
    skipped = tk.swap(network, nn.Identity(), "blocks.0", "blocks.4")
    assert accuracy(network, split.test) > 0.97
    assert accuracy(skipped, split.test) < 0.8


@pytest.mark.slow
def test_the_closed_form_replaces_the_blocks_within_half_a_point(
    network: nn.Module, split: Split
) -> None:
    loader = split.train.loader(500, seed=7)
    surrogate = tk.fit(network, loader, LAYERS, method="edmd", progress=False)
    swapped = tk.swap(network, surrogate, example_inputs=split.test.inputs[:4])
    assert accuracy(swapped, split.test) >= accuracy(network, split.test) - 0.005


@pytest.mark.slow
def test_the_autoencoder_replaces_the_blocks_within_half_a_point(
    network: nn.Module, split: Split, autoencoder: tk.Surrogate
) -> None:
    swapped = tk.swap(network, autoencoder, example_inputs=split.test.inputs[:4])
    assert accuracy(swapped, split.test) >= accuracy(network, split.test) - 0.005


@pytest.mark.slow
def test_one_surrogate_predicts_every_layer_and_replaces_an_inner_span(
    network: nn.Module, split: Split, autoencoder: tk.Surrogate
) -> None:
    layers = tk.evaluate(autoencoder, network, split.test.loader(1000)).layers
    assert list(layers) == [f"blocks.{depth}" for depth in range(1, 5)]
    assert min(layers.values()) > 0.95
    inner = tk.swap(network, autoencoder, "blocks.1", "blocks.3")
    assert accuracy(inner, split.test) >= accuracy(network, split.test) - 0.02


@pytest.mark.slow
@pytest.mark.parametrize("method", ["edmd", "autoencoder"])
def test_the_dots_are_forgotten_and_the_others_kept(
    network: nn.Module, split: Split, autoencoder: tk.Surrogate, method: str
) -> None:
    surrogate = autoencoder
    if method == "edmd":
        loader = split.train.loader(500, seed=7)
        surrogate = tk.fit(network, loader, LAYERS, method="edmd", progress=False)
    before = class_accuracies(tk.swap(network, surrogate), split.test)
    forgetful = tk.swap(network, tk.unlearn(surrogate, [DOT], model=network))
    after = class_accuracies(forgetful, split.test)
    assert before[DOT] > 0.9
    assert after[DOT] <= 0.005
    assert after[0] >= before[0] - 0.003
    assert after[1] >= before[1] - 0.003


@pytest.mark.slow
def test_without_the_neutral_row_the_edit_alone_forgets_most_of_the_dots(
    network: nn.Module, split: Split, autoencoder: tk.Surrogate
) -> None:
    forgetful = tk.swap(network, tk.unlearn(autoencoder, [DOT]))
    assert class_accuracies(forgetful, split.test)[DOT] < 0.2
