"""The families of the zoo: each an architecture, a span of its layers, and what must come of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator, nn

from benchmarks.zoo import images, networks
from benchmarks.zoo.family import EAGER, GRAPHS, NO_FX, Family, Inputs
from benchmarks.zoo.images import ImageNet, PreActivation
from benchmarks.zoo.libraries import TRANSFORMERS
from benchmarks.zoo.networks import Blocks, Dense, repeated

if TYPE_CHECKING:
    from collections.abc import Callable


def normal(*shapes: tuple[int, ...]) -> Callable[[Generator, int], Inputs]:
    """Arguments of these shapes behind the batch."""
    return lambda generator, batch: tuple(
        torch.randn(batch, *shape, generator=generator) for shape in shapes
    )


def blocks(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A network of four such blocks."""
    return lambda: Blocks(repeated(make))


def perceptron() -> nn.Module:
    hidden = [layer for _ in range(4) for layer in (nn.ReLU(inplace=True), nn.Linear(16, 16))]
    return nn.Sequential(nn.Linear(8, 16), *hidden)


def autoencoder() -> nn.Module:
    return nn.Sequential(Dense(8, 16), Dense(16, 4), Dense(4, 16), nn.Linear(16, 8))


def tied() -> nn.Module:
    model = Blocks()
    one, other = (model.blocks.get_submodule(f"{block}.0") for block in (1, 3))
    other.weight = one.weight
    return model


def normed() -> nn.Module:
    model = Blocks(repeated(lambda: nn.Sequential(Dense(), nn.BatchNorm1d(16))))
    for _ in range(3):  # the norms see data
        model(2 * torch.randn(32, 8) + 1)
    return model


ROWS, TWO, SEQUENCE, IMAGE = normal((8,)), normal((8,), (8,)), normal((6, 8)), normal((3, 16, 16))
SPAN = "blocks.0", "blocks.2"
CALLS = "blocks.0#0", "blocks.0#2"

HANDWRITTEN = [
    Family("ResNet, downsampling", images.resnet, IMAGE, *SPAN),
    Family("ResNet, pre-activation", lambda: ImageNet(repeated(PreActivation), 8), IMAGE, *SPAN),
    Family("U-Net, below the skip", images.UNet, IMAGE, "deep.0", "deep.3", ways=GRAPHS),
    Family("U-Net, across the skip", images.UNet, IMAGE, "deep.0", "up", "relu.*enters"),
    Family("DenseNet", images.DenseNet, IMAGE, "layers.0", "layers.3", "enters(.|\n)*escapes"),
    Family("MLP, ReLU in place", perceptron, ROWS, "0", "5"),
    Family("autoencoder", autoencoder, ROWS, "0", "2"),
    Family("two inputs", networks.TwoInputs, TWO, *SPAN),
    Family("conditioned on time", networks.Conditioned, TWO, *SPAN, "sigmoid.*enters"),
    Family("many outputs", networks.ManyOutputs, ROWS, *SPAN),
    Family("dataclasses", networks.Structured, ROWS, *SPAN, ways=EAGER),
    Family("tied weights", tied, ROWS, *SPAN),
    Family("one module, four calls", lambda: Blocks([Dense()] * 4), ROWS, *CALLS, ways=GRAPHS),
    Family("sizes read from input", networks.Shapes, SEQUENCE, *SPAN),
    Family("branching on data", networks.Branching, ROWS, *SPAN, None, "data-dependent", EAGER),
    Family("hidden channel", networks.passing, ROWS, *SPAN, "escapes|something crosses"),
    Family("LSTM", lambda: networks.Recurrent(nn.LSTM), SEQUENCE, *SPAN),
    Family("GRU", lambda: networks.Recurrent(nn.GRU), SEQUENCE, *SPAN),
    Family(
        "nn.TransformerEncoder", networks.encoder, SEQUENCE, "1.layers.0", "1.layers.2", ways=NO_FX
    ),
    Family("MLP-Mixer", blocks(networks.Mixer), SEQUENCE, *SPAN),
    Family("mixture of experts", blocks(networks.Experts), ROWS, *SPAN),
    Family("gated convolutions", blocks(networks.Gated), SEQUENCE, *SPAN),
    Family("batch norm", normed, ROWS, *SPAN),
    Family("dropout", blocks(lambda: nn.Sequential(nn.Dropout(), Dense())), ROWS, *SPAN),
]
"""Networks written by hand, most of them in ``networks.py`` and ``images.py``."""


FAMILIES = [*HANDWRITTEN, *TRANSFORMERS]
