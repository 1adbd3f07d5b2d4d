"""The figures draw what they are given: curves, eigenvalues, states and accuracies."""

from dataclasses import replace

import pytest
import torch
from matplotlib import pyplot as plt

import torchkoopman as tk
from benchmarks import figures
from benchmarks.models import Fitted, fit
from benchmarks.tasks import TASKS


@pytest.fixture(scope="module")
def made() -> Fitted:
    task = replace(
        TASKS["yinyang"],
        training={"epochs": 2, "batch": 500, "rate": 0.03},
        autoencoder={"latent": 8, "steps_per_update": 1},
        steps=5,
    )
    data = task.data(0)
    with torch.random.fork_rng():
        model = task.trained(data.train, 0)
    surrogates = {}
    for method in ("EDMD", "autoencoder"):
        surrogate = fit(task, model, data, 0, method)
        assert isinstance(surrogate, tk.Surrogate)
        surrogates[method] = surrogate
    return Fitted(task, data, model, surrogates, {}, {})


def test_the_spectrum_shows_every_eigenvalue_in_view(made: Fitted) -> None:
    figure = figures.spectrum(made)
    for place, method in zip(figure.axes, ("EDMD", "autoencoder"), strict=True):
        dots = [each for each in place.collections if each.get_label() in place_labels(place)]
        shown = sum(len(each.get_offsets()) for each in dots)
        assert shown == len(made.surrogates[method].spectrum().eigenvalues)
    plt.close(figure)


def place_labels(place: plt.Axes) -> list[str]:
    return place.get_legend_handles_labels()[1]


def test_trajectories_show_the_network_above_and_the_surrogate_below(made: Fitted) -> None:
    figure = figures.trajectories(made)
    assert len(figure.axes) == 2 * 5
    first = [figure.axes[k].collections[0].get_offsets() for k in (0, 5)]
    assert len(first[0]) == len(first[1]) == figures.SHOWN
    plt.close(figure)


def test_betti_curves_have_a_panel_for_each_layer_and_a_line_for_each_system() -> None:
    curve = {"scales": [0.1, 1.0], "values": [5, 1], "low": [4, 1], "high": [6, 1]}
    layers = [
        {"layer": f"blocks.{k}", "relative 0": 0.1 * k, "curves 0": [curve, curve]}
        for k in range(3)
    ]
    figure = figures.betti({"yinyang-0": {"autoencoder, normalised": {"layers": layers}}})
    assert [len(place.lines) for place in figure.axes] == [2, 2, 2]
    assert "blocks.2: 0.200" in figure.axes[2].get_title()
    plt.close(figure)


def test_the_forgetting_table_prints_the_mean_over_networks() -> None:
    before = dict.fromkeys(range(10), 0.5)
    runs = {f"mnist-{k}": {"accuracies": {"swap": [0.1 * k] * 10, "3": before}} for k in (4, 6)}
    figure = figures.forgetting(runs)
    assert [text.get_text() for text in figure.axes[0].texts] == ["50.0"] * 20
    plt.close(figure)
