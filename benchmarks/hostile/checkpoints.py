"""Hostile: layers that run again in the backward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.utils.checkpoint import checkpoint

from benchmarks.hostile.case import Six, case

if TYPE_CHECKING:
    from torch import Tensor

CAUSE = "layers run twice"


class CheckpointBefore(Six):
    """A layer before the span is checkpointed, and runs twice with gradients."""

    reentrant = False

    def forward(self, x: Tensor) -> Tensor:
        if self.harmless:
            return super().forward(x)
        return super().forward(checkpoint(self.b[0], x, use_reentrant=self.reentrant))


class CheckpointSpan(CheckpointBefore):
    """The layers of the span and their neighbors are checkpointed together."""

    def forward(self, x: Tensor) -> Tensor:
        if self.harmless:
            return super().forward(x)
        return checkpoint(super(CheckpointBefore, self).forward, x, use_reentrant=self.reentrant)


class CheckpointEnd(CheckpointBefore):
    """The last layer of the span is checkpointed."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[2](self.b[1](self.b[0](x)))
        if self.harmless:
            return self.b[5](self.b[3](h))
        return self.b[5](checkpoint(self.b[3], h, use_reentrant=self.reentrant))


class OldCheckpointBefore(CheckpointBefore):
    """The other kind of checkpoint."""

    reentrant = True


class OldCheckpointEnd(CheckpointEnd):
    """The other kind of checkpoint."""

    reentrant = True


CASES = [
    case(CAUSE, kind, train=train, name=f"{name}, training" if train else name)
    for train in (False, True)
    for name, kind in {
        "checkpoint before": CheckpointBefore,
        "checkpoint around all": CheckpointSpan,
        "checkpoint at the end": CheckpointEnd,
        "old checkpoint before": OldCheckpointBefore,
        "old checkpoint at the end": OldCheckpointEnd,
    }.items()
    if not train or kind in (CheckpointSpan, CheckpointEnd)
]
