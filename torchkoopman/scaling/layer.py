"""A layer with square layers before it: the path inside a layer, and what replaces the layer.

arXiv 2409.01308 calls this layer scaling; ``scaling.py`` makes and trains such layers.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torchkoopman.koopman.folding import Folded

_GAIN = 0.1
"""Spread of a new residual step's argument for inputs of mean square 1: a tenth of what they are,
so that a path starts close to its layer's input and yet no two units start alike."""


class SquareStep(nn.Module):
    """``σ(W x + b)`` with a square W; as ``residual``, ``x + σ(W x + b)``, near x at first.

    The residual step takes inputs of any sign. The plain one starts as torch starts a linear layer,
    and needs ``batch_norm`` before its activation to be trained in long rows; :meth:`fold` takes
    that into W and b afterwards.
    """

    def __init__(
        self,
        features: int,
        activation: Callable[[], nn.Module],
        generator: torch.Generator,
        *,
        residual: bool = False,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        # skip_init draws no random numbers: the global generator is not ours.
        self.linear = nn.utils.skip_init(nn.Linear, features, features)  # type: ignore[no-untyped-call]
        self.norm = nn.BatchNorm1d(features) if batch_norm else None
        self.activation = activation()
        self.residual = residual
        bound = features**-0.5
        if residual:
            nn.init.normal_(self.linear.weight, std=_GAIN * bound, generator=generator)
            nn.init.zeros_(self.linear.bias)
        else:
            nn.init.uniform_(self.linear.weight, -bound, bound, generator=generator)
            nn.init.uniform_(self.linear.bias, -bound, bound, generator=generator)

    def forward(self, state: Tensor) -> Tensor:
        """``(…, features)`` → the same shape."""
        moved: Tensor = self.linear(state)
        if self.norm is not None:
            moved = self.norm(moved.flatten(0, -2)).reshape(state.shape)
        moved = self.activation(moved)
        return state + moved if self.residual else moved

    def fold(self) -> None:
        """Take the normalisation, as it is in eval mode, into the linear map."""
        norm, self.norm = self.norm, None
        if norm is None:
            return
        assert norm.running_mean is not None
        assert norm.running_var is not None
        self.linear.weight, self.linear.bias = fuse_linear_bn_weights(
            self.linear.weight,
            self.linear.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )


class State(nn.Module):
    """A place to watch: it gives a state padded with zeros to the width of the path's widest.

    Nothing uses the result; it is there for hooks. States of one width share one frame of
    coordinates, in which delay coordinates lose nothing.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, state: Tensor) -> Tensor:
        """``(…, features)`` → ``(…, width)``; a wider state stays as it is."""
        return nn.functional.pad(state, (0, max(0, self.width - state.shape[-1])))


class ScaledLayer(nn.Module):
    """``layer(s_n)``, ``s_k = steps[k-1](s_{k-1})``, ``s_0 = x``: a layer at the end of a path.

    Its submodules ``states.0`` … ``states.{n+1}`` show x, s_1 … s_n and ``layer(x)`` to a probe.
    The last of them is what the layer itself says of x, not of s_n: that is what is to be
    predicted, so that the fit mends what scaling changed.

    Raises:
        TypeError: it is called with anything but one tensor, or its layer returns something else.
        ValueError: its layer changes what is not features.
    """

    def __init__(
        self,
        layer: nn.Module,
        steps: Iterable[nn.Module] = (),
        features: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.layer = layer
        self.features = features
        """Widths of the layer's input and of its output; 0 where they are not known yet."""
        self.states = nn.ModuleList(State(self.width) for _ in range(len(self.steps) + 2))

    @property
    def width(self) -> int:
        """Features of a state as a probe sees it."""
        return max(self.features)

    def path(self, x: Tensor) -> list[Tensor]:
        """x, s_1 … s_n, each ``(batch, …, features)``, in the precision of the steps."""
        return walk(self.steps, x)

    def end(self, state: Tensor) -> Tensor:
        """What the layer gives for a state of the path, computed in the layer's own precision."""
        precision = next(self.layer.parameters(), state).dtype
        out = self.layer(state.to(precision, copy=True))  # it may write into its input
        if not isinstance(out, Tensor):
            raise TypeError(
                f"the layer to be scaled returns a {type(out).__name__}; scaling needs one that "
                "returns one tensor. Choose a layer inside it."
            )
        if state.ndim < 2 or out.shape[:-1] != state.shape[:-1]:
            raise ValueError(
                f"the layer to be scaled leads {tuple(state.shape)} to {tuple(out.shape)}; scaling "
                "needs (batch, …, features) → (batch, …, features'), features being the last axis."
            )
        return out

    def forward(self, *args: Tensor, **kwargs: object) -> Tensor:
        """Input of the layer, ``(batch, …, features)``, to its output at the end of the path."""
        if len(args) != 1 or kwargs or not isinstance(args[0], Tensor):
            given = [type(arg).__name__ for arg in args] + [f"{name}=" for name in kwargs]
            raise TypeError(
                f"the layer to be scaled is called with ({', '.join(given)}); scaling needs one "
                "that takes one tensor alone. Choose a layer inside it."
            )
        x = args[0]
        out = self.end(x)
        path = self.path(x)
        for state, place in zip([*path, out], self.states, strict=True):
            place(state)
        return self.end(path[-1].to(x.dtype)) if self.steps else out


class PathReplacement(nn.Module):
    """From a layer's input to its output without the layer: a path, its stack, one linear system.

    The steps compute ``s_1 … s_n`` of the input x; those that the surrogate starts from are stacked
    and led on linearly. It sees x only. It is not smaller than the layer: it holds the steps, with
    their activations, beside the matrix. It computes in its own precision and returns that of its
    input.
    """

    def __init__(
        self, steps: Iterable[nn.Module], stack: Sequence[int], width: int, core: Folded
    ) -> None:
        super().__init__()
        self.steps = nn.ModuleList(copy.deepcopy(step) for step in list(steps)[: max(stack)])
        self.steps.to(core.dtype).requires_grad_(True)
        self.stack = tuple(stack)
        """Which states are stacked, 0 for x, in order."""
        self.pad = State(width)
        self.core = core

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, …, features)`` → ``(batch, …, features of the layer's output)``."""
        path = walk(self.steps, x.to(self.core.dtype))
        stacked = torch.cat([self.pad(path[index]) for index in self.stack], -1)
        # The surrogate's states are (batch, positions, features): its observables may look along
        # the positions.
        rows = stacked[:, None] if x.ndim == 2 else stacked.flatten(1, -2)
        out: Tensor = self.core(rows)
        return out.reshape(*x.shape[:-1], out.shape[-1]).to(x.dtype)


def walk(steps: nn.ModuleList, x: Tensor) -> list[Tensor]:
    """The states that the steps lead through, x first, in the precision of the steps."""
    precision = next(steps.parameters(), x).dtype
    path = [x.to(precision)]
    for step in steps:
        path.append(step(path[-1]))
    return path
