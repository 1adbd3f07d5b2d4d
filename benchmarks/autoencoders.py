"""Autoencoders whose latent vector fields are looked at, each as ``encode`` and ``decode``.

A perceptron; the convolutional autoencoder of Fumero et al.; a masked autoencoder of transformers.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable


class Autoencoder(nn.Module):
    """What all have: ``encode``, ``decode``, and a forward pass through both."""

    def encode(self, x: Tensor) -> Tensor:
        """Inputs to latent states."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """Latent states to inputs."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


class Perceptron(Autoencoder):
    """Two hidden layers of tanh on each side; inputs ``(n, features)``."""

    def __init__(self, features: int = 64, hidden: int = 128, latent: int = 16) -> None:
        super().__init__()
        sizes = (features, hidden, hidden, latent)
        self.encoder, self.decoder = _layers(sizes), _layers(sizes[::-1])

    def encode(self, x: Tensor) -> Tensor:
        out: Tensor = self.encoder(x)
        return out

    def decode(self, z: Tensor) -> Tensor:
        out: Tensor = self.decoder(z)
        return out


class Convolutional(Autoencoder):
    """Four convolutions of 3 × 3 with stride 2, a linear bottleneck, four transposed convolutions.

    After Fumero et al.: ``d``, ``2 d``, ``4 d`` and ``8 d`` channels, output padding 1. Images are
    ``(n, 1, 32, 32)``: 28 × 28 would not come back as 28 × 28, so MNIST is padded.
    """

    def __init__(self, d: int = 8, latent: int = 16) -> None:
        super().__init__()
        channels = (1, d, 2 * d, 4 * d, 8 * d)
        down: list[nn.Module] = []
        for inside, outside in pairwise(channels):
            down += [nn.Conv2d(inside, outside, 3, stride=2, padding=1), nn.ReLU()]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(8 * d * 4, latent))
        up: list[nn.Module] = []
        for inside, outside in pairwise(channels[::-1]):
            up += [
                nn.ConvTranspose2d(inside, outside, 3, stride=2, padding=1, output_padding=1),
                nn.ReLU(),
            ]
        start = (nn.Linear(latent, 8 * d * 4), nn.Unflatten(1, (8 * d, 2, 2)))
        self.decoder = nn.Sequential(*start, *up[:-1])

    def encode(self, x: Tensor) -> Tensor:
        out: Tensor = self.encoder(x)
        return out

    def decode(self, z: Tensor) -> Tensor:
        out: Tensor = self.decoder(z)
        return out


class Masked(Autoencoder):
    """A ViT-MAE of transformers, its mask one and the same: a state is the tokens it keeps.

    Images are ``(n, 1, side, side)``, states ``(n, 1 + patches kept, hidden)``. The library draws
    a mask for each image; ``noise``, of which the least numbers stand for the patches that are
    kept, takes the place of that draw.
    """

    noise: Tensor

    def __init__(self, side: int = 8, patch: int = 2, hidden: int = 16, keep: float = 0.25) -> None:
        super().__init__()
        from transformers import ViTMAEConfig, ViTMAEForPreTraining

        options: dict[str, Any] = {"attn_implementation": "eager"}
        self.model = ViTMAEForPreTraining(
            ViTMAEConfig(
                image_size=side,
                patch_size=patch,
                num_channels=1,
                hidden_size=hidden,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=2 * hidden,
                decoder_hidden_size=hidden,
                decoder_num_hidden_layers=1,
                decoder_num_attention_heads=2,
                decoder_intermediate_size=2 * hidden,
                mask_ratio=1 - keep,
                **options,
            )
        )
        count = (side // patch) ** 2
        self.register_buffer("noise", torch.rand(count, generator=torch.Generator().manual_seed(0)))

    def encode(self, x: Tensor) -> Tensor:
        noise = self.noise.expand(len(x), -1)
        tokens: Tensor = self.model.vit(x, noise=noise).last_hidden_state
        return tokens

    def decode(self, z: Tensor) -> Tensor:
        restore = self.noise.argsort().argsort().expand(len(z), -1)
        image: Tensor = self.model.unpatchify(self.model.decoder(z, restore).logits)
        return image


def _layers(sizes: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with tanh between them."""
    layers: list[nn.Module] = []
    for width, following in pairwise(sizes):
        layers += [nn.Linear(width, following), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def denoise(
    model: Autoencoder,
    inputs: Tensor,
    steps: int,
    *,
    noise: float = 0.1,
    batch: int = 128,
    after: Callable[[int], object] = lambda step: None,
    **adam: Any,
) -> Autoencoder:
    """Train to take noise away, by Adam with a learning rate that falls to zero.

    Args:
        model: in whichever mode; it is in evaluation mode in the end.
        inputs: ``(n, …)``.
        steps: of the optimiser.
        noise: standard deviation.
        batch: inputs of a step.
        after: called with the steps that are done, after each.
        **adam: options of the optimiser, by default a learning rate of 0.001.
    """
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), **{"lr": 1e-3, **adam})
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for step in range(1, steps + 1):
        few = inputs if len(inputs) <= batch else inputs[torch.randint(len(inputs), (batch,))]
        optimizer.zero_grad()
        loss = (model(few + noise * torch.randn_like(few)) - few).square().mean()
        loss.backward()
        optimizer.step()
        falling.step()
        after(step)
    return model.eval()
