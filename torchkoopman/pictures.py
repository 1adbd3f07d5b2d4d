"""What all pictures share: axes to draw on, and colours that tell apart for colour-blind people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAIN, OTHER, GUIDE = "#1b5e8c", "#b8672a", "#6b6b6b"
"""What is meant first; what is set beside it; circles and axes that guide the eye."""

CLASSES = (
    MAIN,
    OTHER,
    "#3f8f4f",
    "#8d4c9e",
    "#b59a00",
    "#3fa0c4",
    "#7a3b2e",
    "#d0679d",
    "#00695c",
    "#5a5a5a",
)
"""Of classes, in their order; an eleventh takes the first again. Pictures name each class too."""


def axes_for(ax: Axes | None, width: float = 6.0, height: float = 4.0) -> Axes:
    """The axes given, or those of a new figure of so many inches; matplotlib is loaded only here.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: what was given is no axes, such as an array of them.
    """
    try:
        from matplotlib import pyplot as plt
        from matplotlib.axes import Axes
    except ImportError as error:
        raise ImportError(
            "a plot needs matplotlib, which is not installed: pip install 'torchkoopman[plot]'."
        ) from error
    if ax is None:
        return plt.subplots(figsize=(width, height), layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise TypeError(
            f"plot() got ax= of type {type(ax).__name__}; give one matplotlib Axes, such as "
            "plt.subplots()[1] or an entry of the array that plt.subplots(1, 2)[1] is."
        )
    return ax
