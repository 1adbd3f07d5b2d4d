"""Hostile: tensors and values of unusual kinds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Six, case

CAUSE = "unusual kinds of values"


class SetBehind(Six):
    """Another tensor is set on the memory of the state at the start, and written."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        out = self.span(h)
        with torch.no_grad():
            other = torch.empty(0).set_(h.detach().clone() if self.harmless else h.detach())
            other.mul_(2)
        return self.b[5](self.b[4](out)) + h


class DataOfEnd(Six):
    """The data of the span's output is exchanged."""

    def behind(self, h: Tensor) -> Tensor:
        if not self.harmless:
            h.data = h.data * 2
        return h


class ComplexInside(Six):
    """A filter in the frequencies, whose weights are complex, and a spectrum that escapes."""

    def build(self) -> None:
        self.filter = nn.Parameter(torch.randn(WIDTH, 2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        inner = torch.fft.fft(self.b[2](h)) * torch.view_as_complex(self.filter)
        out = self.b[3](torch.fft.ifft(inner).real)
        return self.b[5](self.b[4](out)) + (0 if self.harmless else inner.imag)


class SparseBehind(Six):
    """A sparse matrix mixes the rows, which a buffer counts."""

    def build(self) -> None:
        self.n = 1.0

    def behind(self, h: Tensor) -> Tensor:
        size = h.shape[0]
        self.n += 0 if self.harmless else 1
        mix = torch.sparse_coo_tensor(
            torch.arange(size).repeat(2, 1), torch.full((size,), self.n), (size, size)
        )
        return torch.sparse.mm(mix, h)


class FakeQuantized(Six):
    """Rounding to a grid that follows the largest value seen."""

    def build(self) -> None:
        self.register_buffer("largest", torch.tensor(0.5))

    def behind(self, h: Tensor) -> Tensor:
        if not self.harmless:
            self.largest.copy_(torch.maximum(self.largest, h.detach().abs().max()))
        return torch.fake_quantize_per_tensor_affine(h, float(self.largest) / 127, 0, -128, 127)


class Marked(Tensor):
    """A tensor of a kind of its own."""


class SubclassInside(Six):
    """The state is of its own kind in the span, and the kind decides behind it."""

    def inside(self, h: Tensor) -> Tensor:
        return h if self.harmless else h.as_subclass(Marked)

    def behind(self, h: Tensor) -> Tensor:
        return (h * 2 if isinstance(h, Marked) else h).as_subclass(Tensor)


class Jacobian(Six):
    """Squares of the derivatives of a layer are added, by functorch."""

    def behind(self, h: Tensor) -> Tensor:
        last = self.b[0] if self.harmless else self.b[2]
        slope = torch.func.vmap(torch.func.jacrev(last))(h)
        return h + slope.square().sum(-1)


class FunctionalCall(Six):
    """A layer behind the span runs with scaled weights, which are those of the span."""

    def behind(self, h: Tensor) -> Tensor:
        source = self.b[0] if self.harmless else self.b[2]
        weights = {name: each * 2 for name, each in source.named_parameters()}
        return torch.func.functional_call(self.b[4], weights, (h,))


class PenaltyGradient(Six):
    """The gradient of the output by the state at the start is added."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            h = self.b[1](self.b[0](x))
            h = h if h.requires_grad else h.requires_grad_()
            out = self.b[4](self.span(h))
            if self.harmless:
                return self.b[5](out)
            (slope,) = torch.autograd.grad(out.sum(), h, create_graph=True)
        return self.b[5](out) + slope


class ByNumpy(Six):
    """NumPy scales by what the span has left in an array."""

    def build(self) -> None:
        self.array = np.ones(WIDTH, dtype=np.float32)

    def inside(self, h: Tensor) -> Tensor:
        if not self.harmless:
            self.array[:] = h.detach().numpy().mean(0)
        return h

    def behind(self, h: Tensor) -> Tensor:
        return h * torch.from_numpy(self.array.copy())


class Caught(Six):
    """A layer in the span raises for some values, and the model takes another way."""

    class Picky(nn.Linear):
        """Refuses large outputs."""

        least = 3.0

        def forward(self, h: Tensor) -> Tensor:
            h = super().forward(h)
            if float(h.detach().abs().max()) > self.least:
                raise ArithmeticError
            return h

    def build(self) -> None:
        self.b[2] = self.Picky(WIDTH, WIDTH)
        self.b[1] = nn.Linear(WIDTH, WIDTH)
        self.b[2].least = 1e9 if self.harmless else 3.0

    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        try:
            return self.b[5](self.b[4](self.span(h)))
        except ArithmeticError:
            return self.b[5](h)


class ReturnsBuffer(Six):
    """The output is kept on the model, and the next call begins with it."""

    def build(self) -> None:
        self.register_buffer("kept", torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x + self.kept)
        if not self.harmless:
            self.kept = out.detach()[0]
        return out


CASES = [
    case(CAUSE, kind)
    for kind in (
        SetBehind,
        DataOfEnd,
        ComplexInside,
        FakeQuantized,
        SubclassInside,
        Jacobian,
        FunctionalCall,
        PenaltyGradient,
        ByNumpy,
        Caught,
        ReturnsBuffer,
    )
]
CASES.append(case(CAUSE, SparseBehind, twin=False))
