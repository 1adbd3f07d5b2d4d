"""Networks of the zoo that take images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.zoo.networks import repeated


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """3×3, without bias, as people put it before a batch norm."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


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
        y: Tensor = self.relu(inner + self.shortcut(x))
        return y


class PreActivation(nn.Module):
    """A residual block that normalises first, and writes its sum in place."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(torch.relu(self.norm(x)))
        y += x
        return y


class ImageNet(nn.Module):
    """A stem, blocks of any kind, average pooling, a head."""

    def __init__(self, blocks: list[nn.Module], width: int) -> None:
        super().__init__()
        self.stem, self.blocks = conv(3, 8), nn.Sequential(*blocks)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.flatten(self.blocks(self.stem(x)).mean((2, 3)), 1))
        return y


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
        y: Tensor = self.out(torch.relu(self.up(torch.cat([x, skip], 1))))
        return y


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
