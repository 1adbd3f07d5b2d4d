"""The figures draw what they are given: curves, eigenvalues, states and accuracies."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

import torchkoopman as tk
from benchmarks import attractors_figure, figures, forgetting_figure, kept_figures
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
    assert "blocks.0, " in figure.axes[0].get_title()
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


def test_forgetting_is_drawn_as_differences_from_the_swap_and_the_forgotten_apart() -> None:
    swap, after = [0.9] * 10, [0.9] * 10
    after[3], after[5] = 0.0, 0.892
    runs = {
        f"mnist-{k}": {"accuracies": {"swap": swap, "3": [each + k for each in after]}}
        for k in (-0.002, 0.002)
    }
    figure = forgetting_figure.drawn(runs)
    texts = [text.get_text() for text in figure.axes[0].texts]
    expected = ["+0.00"] * 10
    expected[3], expected[5] = "0.0 %", "-0.80"
    assert texts == expected
    (picture,) = figure.axes[0].images
    drawn = picture.get_array()
    assert drawn is not None
    assert drawn.mask[0].tolist() == [c == 3 for c in range(10)]
    assert picture.get_clim() == pytest.approx((-0.8, 0.8), rel=1e-4), "about zero"
    plt.close(figure)


@pytest.mark.parametrize("name", kept_figures.FIGURES)
def test_a_figure_of_kept_results_is_drawn_from_its_part(name: str, tmp_path: Path) -> None:
    assert kept_figures.main(["--only", name, "--out", str(tmp_path / "new")]) == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"{name}.png"]
    assert (kept_figures.evidence.ROOT / "docs" / "figures" / f"{name}.png").exists()


def test_attractors_are_drawn_for_each_kind_start_and_seed() -> None:
    def run(kind: str, seed: int) -> dict[str, Any]:
        return {
            "kind": kind,
            "steps": [0, 10],
            "attractors": [[1, 1, 1], [seed, 3, 4]],
            "chamfer": [[[0, 0, float("nan")]] * 3, [[0, 0, 0.5]] * 3],
            "novelty": [{"reconstruction": [0.5, 0.9]}, {"orbit": [0.5, 0.9]}],
        }

    results = {f"{kind}-{seed}": run(kind, seed) for kind in ("a", "b") for seed in (5, 7)}
    figure = attractors_figure.drawn(results)
    assert len(figure.axes) == 3 * 2
    above = figure.axes[0]
    assert above.get_title() == "a, 2 seeds"
    drawn = [np.asarray(line.get_ydata()).tolist() for line in above.lines]
    assert len(drawn) == 3 * (2 + 1)
    assert drawn[:3] == [[1, 5], [1, 7], [1, 6]]
