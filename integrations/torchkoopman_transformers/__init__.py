"""torchkoopman in transformers: a callback for its Trainer, ``KoopmanTrainerCallback``."""

from torchkoopman_transformers.callback import KoopmanTrainerCallback
from torchkoopman_transformers.flows import FlowTrainerCallback

__all__ = ["FlowTrainerCallback", "KoopmanTrainerCallback"]
