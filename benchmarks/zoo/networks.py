"""Hand-written networks of the zoo, each small, each with one thing that makes surgery hard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """3×3, without bias, as people put it before a batch norm."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def repeated(make: Callable[[], nn.Module]) -> list[nn.Module]:
    """Four of a kind, each with its own weights."""
    return [make() for _ in range(4)]


class Dense(nn.Sequential):
    """Linear and tanh."""

    def __init__(self, inputs: int = 16, outputs: int | None = None) -> None:
        super().__init__(nn.Linear(inputs, outputs or inputs), nn.Tanh())


class BasicBlock(nn.Module):
    """The basic residual block, with a projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        projection = [nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Sequential(*projection if stride > 1 else [])

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        return self.relu(inner + self.shortcut(x))


class PreActivation(nn.Module):
    """A residual block that normalises first, and writes its sum in place."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(torch.relu(self.norm(x)))
        y += x
        return y


class ImageNet(nn.Module):
    """A stem, blocks of any kind, average pooling, a head."""

    def __init__(self, blocks: list[nn.Module], width: int) -> None:
        super().__init__()
        self.stem, self.blocks = conv(3, 8), nn.Sequential(*blocks)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.blocks(self.stem(x)).mean((2, 3)), 1))


def resnet() -> nn.Module:
    """Basic blocks; the second halves the image and doubles the channels."""
    shapes = [(8, 8), (8, 16, 2), (16, 16), (16, 16)]
    return ImageNet([BasicBlock(*shape) for shape in shapes], 16)


class UNet(nn.Module):
    """One level of down and up, with a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.out = conv(3, 8), conv(16, 8), conv(8, 2)
        self.deep = nn.ModuleList(repeated(lambda: conv(8, 8)))

    def forward(self, x: Tensor) -> Tensor:
        skip = torch.relu(self.down(x))
        x = nn.functional.max_pool2d(skip, 2)
        for layer in self.deep:
            x = torch.relu(layer(x))
        x = nn.functional.interpolate(x, scale_factor=2.0)
        return self.out(torch.relu(self.up(torch.cat([x, skip], 1))))


class DenseNet(nn.Module):
    """Every layer reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3 + 4 * i, 4, 3, padding=1) for i in range(5)])

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(torch.relu(layer(torch.cat(features, 1))))
        return torch.cat(features, 1).mean((2, 3))


class Blocks(nn.Module):
    """A stem, blocks that keep their width, a head; several networks below change the forward."""

    def __init__(self, blocks: list[nn.Module] | None = None) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(8, 16), nn.Linear(16, 3)
        self.blocks = nn.ModuleList(blocks or repeated(Dense))

    def hidden(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Any:
        return self.head(self.hidden(x))


class TwoInputs(Blocks):
    """The second input joins after the blocks."""

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return self.head(self.hidden(x) * torch.sigmoid(self.stem(gate)))


class Conditioned(Blocks):
    """The second input enters at every block, as time does in a diffusion model."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x, scale = self.stem(x), torch.sigmoid(self.stem(time))
        for block in self.blocks:
            x = block(x * scale)
        return self.head(x)


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
        return self.head(hidden.view(batch, positions, -1).mean(1))


class Branching(Blocks):
    """Which way it goes depends on the numbers: no graph holds it."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.hidden(x)
        return self.head(-hidden if hidden.mean() > 0 else hidden)


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
        return Flow(flow.depth + 1, super().forward(flow.hidden))


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
    """An MLP-Mixer block on 6 positions: mix these, then the features."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.positions, self.features = Dense(6), Dense(16)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.positions(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.features(self.norm2(x))


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
        return x + weight * y


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
