"""torchkoopman in transformers: a callback for its Trainer, ``KoopmanTrainerCallback``."""

from torchkoopman_transformers.callback import KoopmanTrainerCallback

__all__ = ["KoopmanTrainerCallback"]
