"""What forgetting digits does to the accuracy of every digit (``benchmarks.kept_figures``)."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drawn(results: dict[str, dict[str, Any]]) -> Figure:
    """What forgetting does to the accuracy of every digit, mean over seeds.

    The retained digits share one scale of colours about zero; on the forgotten ones, which lose a
    hundred times as much, stands what is left.
    """
    runs = [result["accuracies"] for job, result in results.items() if "accuracies" in result]
    sets = [name for name in runs[0] if name != "swap"]
    gone = torch.tensor([[str(c) in name.split("-") for c in range(10)] for name in sets])
    after, before = (
        torch.tensor([[100 * mean(run[name][c] for run in runs) for c in range(10)] for name in of])
        for of in (sets, ["swap"])
    )
    change = after - before
    largest = max(0.5, change[~gone].abs().max().item())
    figure, place = plt.subplots(figsize=(8.2, 6.0), layout="constrained")
    shown = np.ma.masked_where(gone.numpy(), change.numpy())
    picture = place.imshow(shown, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto")
    place.set_facecolor("#d9d9d9")
    for row, column in np.ndindex(*change.shape):
        value = float(after[row, column] if gone[row, column] else change[row, column])
        text = f"{value:.1f} %" if gone[row, column] else f"{value:+.2f}"
        strong = abs(value) > 0.7 * largest and not gone[row, column]
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}
        place.text(column, row, text, color="white" if strong else "black", **look)
    place.set_xticks(range(10), [str(c) for c in range(10)])
    place.set_yticks(range(len(sets)), [name.replace("-", ", ") for name in sets])
    place.set(xlabel="digit", ylabel="forgotten")
    figure.colorbar(picture, ax=place, label="percentage points against the unedited swap")
    place.set_title(
        "Unseen digits: change of accuracy by the edit; grey: forgotten, and how many of them are "
        f"still right\n{len(runs)} network{'s' if len(runs) > 1 else ''}",
        fontsize=10,
    )
    return figure
