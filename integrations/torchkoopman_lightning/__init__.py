"""torchkoopman in Lightning: ``Trainer(callbacks=[KoopmanCallback("blocks.*")])``."""

from torchkoopman_lightning.callback import KoopmanCallback

__all__ = ["KoopmanCallback"]
