"""Results as numbers to draw: named series of arrays, scalars and notes, for pages and event files.

The only place that knows both what is found and what panels draw.
"""

from torchkoopman.showing.dispatch import series_of
from torchkoopman.showing.shown import Shown

__all__ = ["Shown", "series_of"]
