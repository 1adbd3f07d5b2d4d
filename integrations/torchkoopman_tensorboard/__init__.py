"""torchkoopman in TensorBoard: ``log(writer, result, step)``, and the tab that shows what it wrote.

This package imports neither torch nor torchkoopman, so that a TensorBoard process that loads it
stays small. TensorBoard imports it when it starts, and would not start if that failed: so nothing
else is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchkoopman_tensorboard.events import EventFolder
    from torchkoopman_tensorboard.folders import report
    from torchkoopman_tensorboard.summary import log

__all__ = ["PLUGIN_NAME", "EventFolder", "log", "report"]

PLUGIN_NAME = "koopman"
"""Name of the plugin that the tensors of :func:`log` are for, as the tab finds them."""

_HOMES = {"EventFolder": "events", "log": "summary", "report": "folders"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
