"""Three pictures of the bench's first networks: ``make figures``.

The spectrum on its pseudospectrum, Betti curves of network and surrogate, and states moving through
depth. Data and settings are the bench's; its results must be there (``make bench``, or ``make bench
QUICK=1`` for Yin-Yang alone).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import torch

from benchmarks.models import SURROGATES, fitted
from benchmarks.tables import folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchmarks.models import Fitted

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Circle

NETWORK, SURROGATE, GREY = "#1b5e8c", "#d9762b", "#9a9a9a"
CLASSES = ("#1b5e8c", "#d9762b", "#3f8f4f")
"""Blue is the network, orange the surrogate; classes take the same two and green."""
LEVELS = (0.02, 0.05, 0.1, 0.2, 0.5)
"""ε of the pseudospectrum's contours."""
SHOWN = 1500
"""Points of a scatter plot."""


def main() -> int:
    """Draw what the results allow; 1 if there are none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="from the quick bench's results")
    parser.add_argument("--out", type=Path, default=Path("runs/figures"))
    arguments = parser.parse_args()
    results = folder(arguments.quick).parent
    if not (results / "bench.json").exists():
        print(f"{results} holds no results; run the bench first: make bench", file=sys.stderr)
        return 1
    known = json.loads((results / "bench.json").read_text())
    made = fitted("yinyang", 0, arguments.quick, folder(arguments.quick))
    pictures = {
        "spectrum": spectrum(made),
        "trajectories": trajectories(made),
        "betti": betti(known["topology"]),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, figure in pictures.items():
        path = arguments.out / f"{name}.png"
        figure.savefig(path, dpi=110, bbox_inches="tight")
        plt.close(figure)
        print(path)
    return 0


def spectrum(made: Fitted) -> Figure:
    """Eigenvalues over the span, on the residual pseudospectrum of the data."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4), layout="constrained")
    for place, method in zip(axes, SURROGATES, strict=True):
        surrogate = made.surrogates[method]
        own = surrogate.spectrum()
        span = torch.linspace(-1.6, 1.6, 61)
        pseudo = surrogate.pseudospectrum(real=span, imag=span)
        lines = place.contour(
            pseudo.real, pseudo.imag, pseudo.residuals, LEVELS, colors=GREY, linewidths=0.8
        )
        place.clabel(lines, fontsize=7, fmt="%g")
        trusted = own.trusted()
        for kept, colour, size, label in (
            (~trusted, SURROGATE, 9, "not borne out by the data"),
            (trusted, NETWORK, 26, "trusted"),
        ):
            values = own.eigenvalues[kept]
            place.scatter(values.real, values.imag, size, colour, label=label, zorder=3)
        place.add_patch(Circle((0, 0), 1, fill=False, color="black", linewidth=0.8))
        place.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal", xlabel="Re λ", ylabel="Im λ")
        inside = int((own.eigenvalues.abs() <= 1.6).sum())
        place.set_title(f"{method}: {inside} of {len(trusted)} eigenvalues shown", fontsize=10)
    axes[1].legend(fontsize=8, loc="lower left")
    figure.suptitle("K over the whole span, Yin-Yang; contours: least residual at each λ")
    return figure


def trajectories(made: Fitted) -> Figure:
    """States in the plane of each layer's principal axes: the network's, and the surrogate's."""
    test, surrogate = made.data.test, made.surrogates["autoencoder"]
    batch = test.inputs[:SHOWN], test.labels[:SHOWN]
    paths = surrogate.paths(made.model, [batch], samples=SHOWN)
    assert paths.labels is not None
    colours = [CLASSES[c] for c in paths.labels.tolist()]
    columns = len(paths.layers)
    figure, axes = plt.subplots(
        2, columns, figsize=(2.3 * columns, 4.8), layout="constrained", squeeze=False
    )
    for depth, layer in enumerate(paths.layers):
        for row in (0, 1):
            place: Axes = axes[row, depth]
            across, up = paths.points[:, depth, row].T
            place.scatter(across, up, s=3, c=colours, linewidths=0)
            above: Axes = axes[0, depth]
            place.set(xlim=above.get_xlim(), ylim=above.get_ylim(), xticks=[], yticks=[])
        share = 100 * paths.shares[depth, 0].sum()
        axes[0, depth].set_title(f"{layer}, {share:.0f} % of the variance", fontsize=9)
    axes[0, 0].set_ylabel("network")
    axes[1, 0].set_ylabel("surrogate, from blocks.0")
    figure.suptitle("Unseen points through depth, two principal axes of each layer")
    return figure


def betti(results: dict[str, dict[str, Any]]) -> Figure:
    """β0 against ε, layer by layer, of the network and of the autoencoder's surrogate."""
    tasks = [task for task in ("yinyang", "mnist") if f"{task}-0" in results]
    shapes = {task: results[f"{task}-0"]["autoencoder, normalised"]["layers"] for task in tasks}
    columns = max(len(layers) for layers in shapes.values())
    figure, axes = plt.subplots(
        len(tasks),
        columns,
        figsize=(2.4 * columns, 2.5 * len(tasks)),
        layout="constrained",
        squeeze=False,
        sharey="row",
    )
    for row, (task, layers) in enumerate(shapes.items()):
        for column in range(columns):
            place: Axes = axes[row, column]
            if column >= len(layers):
                place.axis("off")
                continue
            layer = layers[column]
            both = zip(
                layer["curves 0"], (NETWORK, SURROGATE), ("network", "surrogate"), strict=True
            )
            for curve, colour, label in both:
                place.plot(curve["scales"], curve["values"], color=colour, label=label)
                place.fill_between(
                    curve["scales"],
                    curve["low"],
                    curve["high"],
                    color=colour,
                    alpha=0.2,
                    linewidth=0,
                )
            distance = layer["relative 0"]
            place.set_title(f"{task}, {layer['layer']}: {distance:.3f}", fontsize=9)
            place.tick_params(labelsize=7)
            if row == len(tasks) - 1 or column >= len(list(shapes.values())[-1]):
                place.set_xlabel("ε, RMS radii", fontsize=8)
        axes[row, 0].set_ylabel("components, β0")
    axes[0, 0].legend(fontsize=8)
    figure.suptitle("β0 of unseen points with 90 % bands; in the titles the relative L1 distance")
    return figure


if __name__ == "__main__":
    sys.exit(main())
