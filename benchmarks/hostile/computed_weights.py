"""Layers whose weights are computed look hostile and are not: each must come out exact."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from benchmarks.hostile.case import WIDTH, Six, case

if TYPE_CHECKING:
    from collections.abc import Callable

CAUSE = "friendly"


class Wrapped(Six):
    """The weights of all layers are made from others by a wrapper."""

    wrapper: Callable[..., nn.Module]

    def build(self) -> None:
        for each in self.b:
            type(self).wrapper(each[0])


class OldWeightNorm(Wrapped):
    """Weight norm, the old kind, after a forward without gradients."""

    wrapper = staticmethod(weight_norm)

    def build(self) -> None:
        super().build()
        with torch.no_grad():
            super().forward(torch.ones(2, WIDTH))


class NewWeightNorm(Wrapped):
    """Weight norm as a parametrization."""

    wrapper = staticmethod(parametrizations.weight_norm)


class NewSpectralNorm(Wrapped):
    """Spectral norm as a parametrization."""

    wrapper = staticmethod(parametrizations.spectral_norm)


class OldSpectralNorm(Wrapped):
    """Spectral norm, the old kind."""

    wrapper = staticmethod(spectral_norm)

    def build(self) -> None:
        super().build()
        with torch.no_grad():
            super().forward(torch.ones(2, WIDTH))


class Orthogonal(Wrapped):
    """Orthogonal weights."""

    wrapper = staticmethod(parametrizations.orthogonal)


KINDS = (OldWeightNorm, NewWeightNorm, NewSpectralNorm, OldSpectralNorm, Orthogonal)
CASES = [case(CAUSE, kind, twin=False) for kind in KINDS]
TRAINED = case(CAUSE, NewSpectralNorm, twin=False, train=True)
CASES.append(replace(TRAINED, name=f"{TRAINED.name} in training"))
