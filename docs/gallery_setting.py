"""The gallery's scripts: their order, and what each begins with, whatever ran before it."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt

ORDER = (
    "depth",
    "transformer",
    "latent_field",
    "flip_flop",
    "forgetting",
    "training",
    "shipping",
    "processes",
)


class ReadingOrder:
    """Sorts ``plot_<name>.py`` as ``ORDER`` says; a script that is not in it is an error."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, script: str) -> int:
        """Place of a script."""
        return ORDER.index(Path(script).stem.removeprefix("plot_"))


def begin(_: dict[str, Any], script: str) -> None:
    """Undo what an earlier script has left; Sphinx-Gallery calls it before each."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002, the global numbers, which others may draw
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32)
    plt.rcParams.update({"figure.facecolor": "white", "figure.dpi": 110, "savefig.dpi": 110})
