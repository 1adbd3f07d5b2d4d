"""The autoencoders of the part on latent vector fields."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

LATENT = 16
NOISE = 0.1
"""Of the training, where nothing else is said."""
AUTOENCODER_SEED = 4000
"""Added to a seed for weights and training; data take it bare."""


def autoencoder(
    inputs: Tensor, width: int, noise: float, seed: int, steps: int, features: int = 64
) -> tuple[nn.Module, nn.Module]:
    """A perceptron of two hidden layers on each side, trained to take ``noise`` away."""
    torch.manual_seed(AUTOENCODER_SEED + seed)
    hidden = 256 if features > 64 else 128
    sizes = (features, hidden, hidden, width)
    encode, decode = perceptron(sizes), perceptron(sizes[::-1])
    optimizer = torch.optim.Adam([*encode.parameters(), *decode.parameters()], lr=1e-3)
    for _ in range(steps):
        few = len(inputs) <= 128
        batch = inputs if few else inputs[torch.randint(len(inputs), (128,))]
        optimizer.zero_grad()
        noisy = batch + noise * torch.randn_like(batch)
        (decode(encode(noisy)) - batch).square().mean().backward()
        optimizer.step()
    return encode.eval(), decode.eval()


def perceptron(sizes: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with tanh between them."""
    layers: list[nn.Module] = []
    for width, following in pairwise(sizes):
        layers += [nn.Linear(width, following), nn.Tanh()]
    return nn.Sequential(*layers[:-1])
