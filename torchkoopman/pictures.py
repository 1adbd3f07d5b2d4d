"""What all pictures share: axes to draw on, and colours that tell apart for colour-blind people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAIN, OTHER, GUIDE = "#1b5e8c", "#b8672a", "#6b6b6b"
"""What is meant first; what is set beside it; circles and axes that guide the eye."""


def axes_for(ax: Axes | None, width: float = 6.0, height: float = 4.0) -> Axes:
    """The axes given, or those of a new figure of so many inches; matplotlib is loaded only here.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ImportError(
            "a plot needs matplotlib, which is not installed: pip install 'torchkoopman[plot]'."
        ) from error
    return plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax
