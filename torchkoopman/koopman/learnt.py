"""Learnt observables: the encoder and decoder of a Koopman autoencoder (arXiv 2505.12809)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.koopman.feature_maps import Affine


class SkipMLP(nn.Module):
    """``x ↦ skip(x) + mlp(x)``: a multilayer perceptron beside a linear map.

    The linear path starts as the identity on the coordinates both sides share.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        widths = [inputs, *hidden]
        layers: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):  # the user's random numbers are the user's
            self.skip = nn.Linear(inputs, outputs)
            for width, following in pairwise(widths):
                layers += [nn.Linear(width, following), nn.LeakyReLU()]
            self.mlp = nn.Sequential(*layers, nn.Linear(widths[-1], outputs))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator, gain: float = 1.0) -> None:
        """Draw the weights from ``generator`` alone; ``gain`` scales the perceptron's output."""
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
        self._last().weight.mul_(gain)
        self._last().bias.zero_()
        nn.init.eye_(self.skip.weight)
        nn.init.zeros_(self.skip.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(…, inputs)`` → ``(…, outputs)``."""
        return torch.add(self.skip(x), self.mlp(x))

    @torch.no_grad()
    def in_units(self, unit: float) -> SkipMLP:
        """``x ↦ f(unit · x) / unit`` of this map f, for a positive unit."""
        image = self._resized(self.skip.in_features, self.skip.out_features)
        for name, tensor in image.named_parameters():
            if name.endswith("bias"):  # what LeakyReLU leads from layer to layer scales with x
                tensor.div_(unit)
        return image

    @torch.no_grad()
    def before(self, inner: Affine) -> SkipMLP:
        """The same map of ``weight @ x + bias``, as a map of ``x``."""
        image = self._resized(inner[0].shape[1], self.skip.out_features)
        for ours, theirs in ((self.skip, image.skip), (self._first(), image._first())):
            theirs.weight.copy_(ours.weight.double() @ inner[0].double())
            theirs.bias.copy_(ours.weight.double() @ inner[1].double() + ours.bias)
        return image

    @torch.no_grad()
    def after(self, outer: Affine) -> SkipMLP:
        """This map followed by ``weight @ x + bias``."""
        image = self._resized(self.skip.in_features, outer[0].shape[0])
        for ours, theirs in ((self.skip, image.skip), (self._last(), image._last())):
            theirs.weight.copy_(outer[0].double() @ ours.weight.double())
            theirs.bias.copy_(outer[0].double() @ ours.bias.double())
        image.skip.bias.add_(outer[1])
        return image

    def _resized(self, inputs: int, outputs: int) -> SkipMLP:
        """A copy with other outer widths; only inner layers keep their values."""
        hidden = [layer.out_features for layer in self.mlp if isinstance(layer, nn.Linear)][:-1]
        image = SkipMLP(inputs, hidden, outputs).to(self.skip.weight)
        for name, tensor in self.state_dict().items():
            if image.get_parameter(name).shape == tensor.shape:
                image.get_parameter(name).copy_(tensor)
        return image

    def _first(self) -> nn.Linear:
        return next(layer for layer in self.mlp if isinstance(layer, nn.Linear))

    def _last(self) -> nn.Linear:
        return next(layer for layer in reversed(self.mlp) if isinstance(layer, nn.Linear))


class LearntObservables(nn.Module):
    """``z = [1, encoder(c)]`` and ``c ≈ decoder(z)``; without ``constant``, ``z = encoder(c)``."""

    contextual = False

    def __init__(
        self, features: int, latent: int, hidden: Sequence[int] = (64,), constant: bool = True
    ) -> None:
        super().__init__()
        if latent < 1 + constant:
            raise ValueError(f"latent={latent} leaves no learnt coordinate beside the constant.")
        self.features, self.latent, self.constant = features, latent, constant
        self.hidden = tuple(hidden)
        learnt = latent - int(constant)
        self.encoder = SkipMLP(features, self.hidden, learnt)
        self.decoder = SkipMLP(learnt, self.hidden[::-1], features)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights from ``generator``; the decoder's linear path inverts the encoder's."""
        self.encoder.initialise(generator)
        self.decoder.initialise(generator, gain=0.1)

    def encode(self, coordinates: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(…, features)`` → ``(…, latent)``; every position by itself, whatever the mask."""
        learnt: Tensor = self.encoder(coordinates)
        if not self.constant:
            return learnt
        return torch.cat([torch.ones_like(learnt[..., :1]), learnt], -1)

    def decode(self, latent: Tensor) -> Tensor:
        """``(…, latent)`` → ``(…, features)``."""
        out: Tensor = self.decoder(latent[..., int(self.constant) :])
        return out

    def with_constant(self) -> LearntObservables:
        """The same encoder and decoder with the constant in front."""
        image = LearntObservables(
            self.features, self.latent + 1 - int(self.constant), self.hidden, constant=True
        )
        image.encoder, image.decoder = self.encoder, self.decoder
        return image

    def config(self) -> dict[str, Any]:
        """JSON-able structure."""
        return {
            "kind": "learnt",
            "features": self.features,
            "latent": self.latent,
            "hidden": list(self.hidden),
            "constant": self.constant,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LearntObservables:
        """Observables of the structure of ``config``; the weights are still to be loaded."""
        return cls(config["features"], config["latent"], config["hidden"], config["constant"])
