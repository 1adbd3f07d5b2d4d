"""torchkoopman in TensorBoard: ``log(writer, surrogate, step)``, and folders for whole trainings.

This package imports neither torch nor torchkoopman, so that a TensorBoard process that loads it
stays small.
"""

from torchkoopman_tensorboard.events import EventFolder
from torchkoopman_tensorboard.summary import PLUGIN_NAME, log

__all__ = ["PLUGIN_NAME", "EventFolder", "log"]
