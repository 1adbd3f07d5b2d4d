"""Hand-written networks of the zoo, each small, each with one thing that makes surgery hard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable


def repeated(make: Callable[[], nn.Module]) -> list[nn.Module]:
    """Four of a kind, each with its own weights."""
    return [make() for _ in range(4)]


class Dense(nn.Sequential):
    """Linear and tanh."""

    def __init__(self, inputs: int = 16, outputs: int | None = None) -> None:
        super().__init__(nn.Linear(inputs, outputs or inputs), nn.Tanh())


class Parts(nn.Module):
    """A stem, blocks that keep their width, a head: the networks below differ in the forward."""

    def __init__(self, blocks: list[nn.Module] | None = None) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(8, 16), nn.Linear(16, 3)
        self.blocks = nn.ModuleList(blocks or repeated(Dense))

    def hidden(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x


class Blocks(Parts):
    """One after the other."""

    def forward(self, x: Tensor) -> Any:
        return self.head(self.hidden(x))


class TwoInputs(Parts):
    """The second input joins after the blocks."""

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        y: Tensor = self.head(self.hidden(x) * torch.sigmoid(self.stem(gate)))
        return y


class Conditioned(Parts):
    """The second input enters at every block, as time does in a diffusion model."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x, scale = self.stem(x), torch.sigmoid(self.stem(time))
        for block in self.blocks:
            x = block(x * scale)
        y: Tensor = self.head(x)
        return y


class ManyOutputs(Blocks):
    """A dictionary with a tuple in it."""

    def forward(self, x: Tensor) -> dict[str, Any]:
        hidden = self.hidden(x)
        return {"logits": self.head(hidden), "features": (hidden, hidden.square().mean(-1))}


class Shapes(Blocks):
    """Sequences become rows and back, by the sizes that come."""

    def forward(self, x: Tensor) -> Tensor:
        batch, positions, features = x.shape
        hidden = self.hidden(x.reshape(batch * positions, features))
        y: Tensor = self.head(hidden.view(batch, positions, -1).mean(1))
        return y


class Branching(Blocks):
    """Which way it goes depends on the numbers: no graph holds it."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.hidden(x)
        y: Tensor = self.head(-hidden if hidden.mean() > 0 else hidden)
        return y


class Recurrent(Blocks):
    """Layers that return a sequence and their last state."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__(repeated(lambda: kind(16, 16, batch_first=True)))

    def hidden(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x, _ = block(x)
        return x


@dataclass
class Flow:
    """What a block of ``Structured`` gives and takes, and what the network returns."""

    depth: int
    hidden: Tensor


class Counting(Dense):
    """Counts its depth along."""

    def forward(self, flow: Flow) -> Flow:
        hidden: Tensor = super().forward(flow.hidden)  # type: ignore[no-untyped-call]
        return Flow(flow.depth + 1, hidden)


class Structured(Blocks):
    """Its blocks, and it too, return a dataclass."""

    def __init__(self) -> None:
        super().__init__(repeated(Counting))

    def forward(self, x: Tensor) -> Flow:
        flow = Flow(0, self.stem(x))
        for block in self.blocks:
            flow = block(flow)
        return Flow(flow.depth, self.head(flow.hidden))


class Mixer(nn.Module):
    """An MLP-Mixer block: mix the positions, then the features."""

    def __init__(self, positions: int = 6, width: int = 16) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.positions, self.features = Dense(positions), Dense(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.positions(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        y: Tensor = x + self.features(self.norm2(x))
        return y


class Experts(nn.Module):
    """A mixture of four experts: each row goes to the one that a router chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(16, 4)
        self.experts = nn.ModuleList(repeated(Dense))

    def forward(self, x: Tensor) -> Tensor:
        weight, chosen = self.router(x).softmax(-1).max(-1, keepdim=True)
        y = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            rows = (chosen == index).squeeze(-1).nonzero().squeeze(-1)
            y = y.index_add(0, rows, expert(x[rows]))
        mixed: Tensor = x + weight * y
        return mixed


class Gated(nn.Module):
    """A causal gated convolution over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(16, 32, 3, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
        return x + nn.functional.glu(y, -1)


class Passing(nn.Module):
    """Called twice: leaves what it gets in an attribute, then adds that to what it gets."""

    left: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        before, self.left = self.left, x if self.left is None else None
        return x if before is None else x + before


def passing() -> nn.Module:
    """What the second block computes on the way reaches the last one without being seen."""
    shared = Passing()
    return Blocks([Dense(), nn.Sequential(Dense(), shared, Dense()), Dense(), shared])


def encoder() -> nn.Module:
    """PyTorch's own transformer encoder, which has a fast path in eval mode."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return nn.Sequential(nn.Linear(8, 16), nn.TransformerEncoder(layer, 4))
