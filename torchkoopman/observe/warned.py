"""Warnings name the line of the user's code that led to them, however deep they come from."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_PASSED = {
    *("torch", "lightning", "pytorch_lightning", "transformers", "accelerate"),
    *("contextlib", "functools", "threading"),
}
"""Whose code calls ours on behalf of the user's: top-level modules, besides our own."""


def warn(message: str, category: type[Warning] = RuntimeWarning) -> None:
    """Warn at the innermost line that is neither ours nor of a module that calls us for the user.

    Args:
        message: what is wrong, and the way out.
        category: of the warning.
    """
    frame: FrameType | None = sys._getframe(1)
    level = 2  # 1 is the line below
    while frame is not None and _is_passed(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=2 if frame is None else level)


def _is_passed(frame: FrameType) -> bool:
    """Whether a frame's code is of this package or stands between it and the user's."""
    top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return top in _PASSED or top.startswith("torchkoopman")
