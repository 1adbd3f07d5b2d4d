"""torchkoopman in Lightning: ``Trainer(callbacks=[KoopmanCallback("blocks.*")])``."""

from torchkoopman_lightning.callback import KoopmanCallback
from torchkoopman_lightning.flows import FlowCallback

__all__ = ["FlowCallback", "KoopmanCallback"]
