"""Parts of a dictionary: functions of a state's coordinates beside these themselves.

Parts see states of shape ``(batch, positions, coordinates)`` and may look along the positions.
"""

from __future__ import annotations

from functools import partial
from itertools import chain, combinations_with_replacement
from math import comb
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_MONOMIALS = 10_000
"""A dictionary of more functions than this has moments of most of a gigabyte."""

_HIGHEST_DEGREE = 100
"""A product of more coordinates than this over- or underflows unless all are near 1."""

Affine = tuple[Tensor, Tensor]
"""``(weight, bias)`` of ``x ↦ weight @ x + bias``."""


class Part(nn.Module):
    """Some of a dictionary's functions.

    ``width(features)`` says how many there are. ``affine_in_state`` parts L commute with affine
    maps of the features, ``L(W x + b) = W L(x) + b`` copy by copy, which is what lets a layer's
    coordinates fold away.
    """

    affine_in_state = True
    contextual = False  # a position's functions depend on that position alone

    def width(self, features: int) -> int:
        """Number of functions for states of ``features`` coordinates."""
        raise NotImplementedError

    def build(self, features: int, generator: torch.Generator | None) -> Self:
        """Fix what depends on the number of coordinates; called once."""
        return self

    def folded(self, inner: Affine) -> Part:
        """The part that takes ``x`` and gives what this one gives for ``weight @ x + bias``.

        For parts affine in the state this is the part itself, the affine map moving behind it.
        """
        return self

    def config(self) -> dict[str, Any]:
        """JSON-able arguments of the constructor."""
        return {}


class RandomFeatures(Part):
    """``tanh(W c + b)`` with fixed random W and b (random features, Rahimi & Recht 2007).

    The entries of W are normal with deviation ``scale / √coordinates``, b is normal with deviation
    ``scale``: coordinates have mean square 1, so ``scale`` is the spread of the argument.
    """

    affine_in_state = False
    weight: Tensor
    bias: Tensor

    def __init__(self, count: int = 500, scale: float = 1.0) -> None:
        super().__init__()
        if count < 1 or scale <= 0:
            raise ValueError(f"RandomFeatures needs count ≥ 1 and scale > 0; got {count}, {scale}.")
        self.count, self.scale = count, scale

    def width(self, features: int) -> int:
        """``count``, whatever the state."""
        return self.count

    def build(self, features: int, generator: torch.Generator | None) -> Self:
        """Draw W and b."""
        deviation = self.scale / features**0.5
        draw = partial(
            torch.randn, generator=generator, dtype=torch.float32
        )  # whatever the default
        self.register_buffer("weight", draw(self.count, features) * deviation)
        self.register_buffer("bias", draw(self.count) * self.scale)
        return self

    def folded(self, inner: Affine) -> Part:
        """Random features of ``x`` equal to these of ``weight @ x + bias``."""
        weight, bias = (value.double() for value in inner)
        image = RandomFeatures(self.count, self.scale)
        image.register_buffer("weight", (self.weight.double() @ weight).to(self.weight))
        image.register_buffer("bias", (self.weight.double() @ bias + self.bias).to(self.bias))
        return image

    def forward(self, state: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, positions, coordinates)`` → ``(batch, positions, count)``."""
        return torch.tanh(nn.functional.linear(state, self.weight, self.bias))

    def config(self) -> dict[str, Any]:
        """Count and scale."""
        return {"count": self.count, "scale": self.scale}


class Monomials(Part):
    """Products of two and more coordinates, up to ``degree`` of them, each product once.

    With the constant and the coordinates, which every dictionary has, these are all polynomials of
    that degree: closed under polynomial maps whose compositions stop growing, and the dictionary of
    textbook examples. Their number grows as ``coordinates ** degree``: give a ``rank``.
    """

    affine_in_state = False
    weight: Tensor
    bias: Tensor
    factors: Tensor

    def __init__(self, degree: int = 2) -> None:
        super().__init__()
        if degree < 2:
            raise ValueError(f"Monomials needs degree ≥ 2 (1 is the state itself); got {degree}.")
        self.degree = degree

    def width(self, features: int) -> int:
        """All products of 2 to ``degree`` coordinates; folded ones count those before folding."""
        own = len(self.weight) if "weight" in self._buffers else features
        return comb(own + self.degree, self.degree) - own - 1

    def build(self, features: int, generator: torch.Generator | None) -> Self:
        """List the products.

        Raises:
            ValueError: there are more than 10 000.
        """
        return self._of(torch.eye(features), torch.zeros(features))

    def folded(self, inner: Affine) -> Part:
        """Monomials of ``weight @ x + bias``, as functions of ``x``."""
        weight, bias = (value.double() for value in inner)
        own = self.weight.double()
        return Monomials(self.degree)._of(
            (own @ weight).to(self.weight), (own @ bias + self.bias).to(self.bias)
        )

    def forward(self, state: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, positions, coordinates)`` → ``(batch, positions, products)``."""
        own = nn.functional.linear(state, self.weight, self.bias)
        # The first entry is 1, so that shorter products have as many factors as the longest.
        known = torch.cat([torch.ones_like(own[..., :1]), own], -1)
        product = known[..., self.factors[0]]
        for factor in self.factors[1:]:
            product = product * known[..., factor]
        return product

    def config(self) -> dict[str, Any]:
        """The degree."""
        return {"degree": self.degree}

    def _of(self, weight: Tensor, bias: Tensor) -> Self:
        """Monomials of ``weight @ c + bias``."""
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        count = self.width(len(weight)) if self.degree <= _HIGHEST_DEGREE else "too many"
        if isinstance(count, str) or count > _MOST_MONOMIALS:
            raise ValueError(
                f"Monomials(degree={self.degree}) of {len(weight)} coordinates are {count} "
                f"functions, more than {_MOST_MONOMIALS}, or of a degree above "
                f"{_HIGHEST_DEGREE}; fit with a lower rank or degree."
            )
        products = chain.from_iterable(
            combinations_with_replacement(range(1, len(weight) + 1), order)
            for order in range(2, self.degree + 1)
        )
        padded = [(*product, *[0] * (self.degree - len(product))) for product in products]
        # In no file, so it has numbers where the rest is still to be loaded.
        device = "cpu" if weight.is_meta else weight.device
        factors = torch.tensor(padded, device=device).T.contiguous()
        self.register_buffer("factors", factors, persistent=False)
        return self


class ContextMean(Part):
    """The mean state over the sample's positions; with ``causal`` over those up to each one."""

    contextual = True

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal

    def width(self, features: int) -> int:
        """One mean per coordinate."""
        return features

    def forward(self, state: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, positions, coordinates)`` → the same shape; masked positions do not count."""
        counted = torch.ones_like(state[..., :1]) if mask is None else mask[..., None].to(state)
        known = state if mask is None else torch.where(mask[..., None], state, 0)
        if self.causal:
            return known.cumsum(1) / counted.cumsum(1).clamp(min=1)
        mean = known.sum(1, keepdim=True) / counted.sum(1, keepdim=True).clamp(min=1)
        return mean.expand_as(state)

    def config(self) -> dict[str, Any]:
        """Whether causal."""
        return {"causal": self.causal}


class Neighbours(Part):
    """Delay coordinates along the positions: the states at the given offsets.

    Offset -1 is the position before. Beyond the ends, and where a neighbour is masked, a position
    stands for its own neighbour. Negative offsets alone are causal.
    """

    contextual = True

    def __init__(self, offsets: Sequence[int] = (-1, 1)) -> None:
        super().__init__()
        if not offsets or 0 in offsets:
            raise ValueError(f"offsets={tuple(offsets)} must be non-zero integers, at least one.")
        self.offsets = tuple(offsets)

    def width(self, features: int) -> int:
        """One state per offset."""
        return features * len(self.offsets)

    def forward(self, state: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, positions, coordinates)`` → ``(batch, positions, offsets·coordinates)``."""
        here = torch.arange(state.shape[1], device=state.device)
        copies = []
        for offset in self.offsets:
            there = here + offset
            inside = (there >= 0) & (there < state.shape[1])
            index = torch.where(inside, there, here)
            known = inside if mask is None else inside & mask[:, index]
            copies.append(torch.where(known[..., None], state[:, index], state))
        return torch.cat(copies, -1)

    def config(self) -> dict[str, Any]:
        """The offsets."""
        return {"offsets": list(self.offsets)}


PARTS: dict[str, type[Part]] = {
    part.__name__: part for part in (RandomFeatures, Monomials, ContextMean, Neighbours)
}


def as_parts(observables: Part | Sequence[Part]) -> list[Part]:
    """One part or several, as a list.

    Raises:
        TypeError: something else came.
    """
    parts: list[Any] = [observables]
    if isinstance(observables, list | tuple):
        parts = list(observables)
    for part in parts:
        if not isinstance(part, Part):
            given = f"the class {part.__name__}" if isinstance(part, type) else repr(part)
            raise TypeError(
                f"observables are made of {', '.join(PARTS)}, one or a list of them; got {given}. "
                "Give an instance, such as RandomFeatures(500)."
            )
    return parts
