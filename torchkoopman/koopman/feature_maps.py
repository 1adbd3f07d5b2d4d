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

from torchkoopman.koopman.contextual import ContextMean, Neighbours
from torchkoopman.koopman.part import Affine, Part

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "PARTS",
    "Affine",
    "ContextMean",
    "Monomials",
    "Neighbours",
    "Part",
    "RandomFeatures",
    "as_parts",
]

_MOST_MONOMIALS = 10_000
"""A dictionary of more functions than this has moments of most of a gigabyte."""

_HIGHEST_DEGREE = 100
"""A product of more coordinates than this over- or underflows unless all are near 1."""


class RandomFeatures(Part):
    """``tanh(W c + b)`` of the coordinates c, with fixed random W and b.

    The entries of W are normal with deviation ``scale / √coordinates``, those of b with deviation
    ``scale``: coordinates have mean square 1, so ``scale`` is the spread of the argument. Random
    features are those of Rahimi & Recht (2007).

    Example:
        >>> fitter = tk.EDMDFitter(tk.RandomFeatures(100))
        >>> fitted = tk.fit(model, train.loader(500), ["1", "9"], method=fitter, progress=False)
        >>> fitted.latent  # 1, 32 coordinates, 100 features
        133

    Args:
        count: number of features, 1 or more.
        scale: spread of the argument of tanh, above 0.

    Raises:
        ValueError: an argument out of range.
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

    With 1 and the coordinates, which every dictionary has, they span all polynomials up to that
    degree. Their number grows as ``coordinates ** degree``: fit with a low ``rank``.

    Example:
        >>> loader, fitter = train.loader(500), tk.EDMDFitter(tk.Monomials(2), rank=5)
        >>> tk.fit(model, loader, ["1", "9"], method=fitter, progress=False).latent  # 1 + 5 + 15
        21

    Args:
        degree: the largest number of factors, 2 or more.

    Raises:
        ValueError: a lower degree; in the fit, more than 10 000 products or a degree above 100.
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
