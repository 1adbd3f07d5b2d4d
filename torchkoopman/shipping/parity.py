"""Parity: a file's program must agree with its model, also on inputs of other sizes."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchkoopman.observe.places import leaves
from torchkoopman.shipping.axes import BATCH, resized

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torchkoopman.observe.example import Example
    from torchkoopman.shipping.axes import FreeAxis

TOLERANCE = 1e-5
"""Largest relative difference between a program and its model in float32. Rounding of sums in
another order stays below: 2e-6 for transformers of 16 layers in onnxruntime, 0 in torch."""
ROUNDINGS = 8
"""In coarser precisions, the difference in units of the last place that is tolerated."""


def plain(output: Any) -> Any:
    """An output in tuples, lists and dictionaries only.

    A file that held a class, such as the ``ModelOutput`` of transformers or a dataclass, could only
    be read where that class is known.
    """
    if isinstance(output, Mapping):
        return {key: plain(value) for key, value in output.items()}
    if isinstance(output, tuple | list):
        return (tuple if isinstance(output, tuple) else list)(map(plain, output))
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        fields = [entry.name for entry in dataclasses.fields(output)]
        return {name: plain(getattr(output, name)) for name in fields}
    return output


def values(output: Any) -> list[Tensor]:
    """The tensors and numbers of a plain output."""
    return [
        torch.as_tensor(leaf)
        for _, leaf in leaves(output)
        if isinstance(leaf, Tensor | int | float)
    ]


@dataclass(frozen=True)
class Trials:
    """What a model returns for inputs of several sizes, and so must its files."""

    runs: list[tuple[Example, Any]]
    """Inputs, and the model's output."""
    axes: tuple[FreeAxis, ...]
    """The free axes."""
    limit: float
    """The relative difference that counts as rounding."""

    @classmethod
    def of(cls, model: nn.Module, example: Example, axes: tuple[FreeAxis, ...]) -> Trials:
        """Run a model with plain outputs.

        All free axes get another size, then the batch a size of one, for which torch.export asks
        no proof, unless the model itself does not take it. Without free axes it is the example.

        Raises:
            RuntimeError: the model does not take other sizes.
        """
        other = resized(example, {axis: axis.another(example) for axis in axes})
        try:
            runs = [(other, other.run(model))]
        except Exception as error:  # runs the user's code
            raise RuntimeError(
                f"{type(model).__name__} takes inputs of shapes {shapes(example)} but fails on "
                f"{shapes(other)}: {in_short(error)}{way_out(axes)}"
            ) from error
        batch = {axis: 1 for axis in axes if axis.name == BATCH}
        single = resized(other, batch)
        with contextlib.suppress(Exception):  # nobody gives a program what its model does not take
            runs += [(single, single.run(model))] if batch else []
        return cls(runs, axes, tolerance(model))

    def check(self, program: Callable[[Example], Sequence[Tensor]]) -> None:
        """Run a program, from inputs to the values of the output, and compare all of these.

        Raises:
            RuntimeError: it fails, or disagrees with the model.
        """
        for example, expected in self.runs:
            try:
                found = program(example)
            except Exception as error:  # a program's guards have many error classes
                raise RuntimeError(
                    f"the exported program fails on inputs of shapes {shapes(example)}, which its "
                    f"model takes: {in_short(error)}{way_out(self.axes)}"
                ) from error
            gap = difference(found, values(expected))
            if not gap <= self.limit:
                how = "in shape" if gap == math.inf else f"by {gap:.1e} of the largest output"
                raise RuntimeError(
                    f"the exported program differs from the model {how} on inputs of shapes "
                    f"{shapes(example)}; {self.limit:.1e} would be rounding. The model's forward "
                    "may be random in eval mode, keep a state, or branch on sizes."
                    f"{way_out(self.axes)}"
                )


def tolerance(model: nn.Module) -> float:
    """Relative difference that is rounding, in the coarsest precision of the model."""
    kinds = {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()}
    return max([TOLERANCE, *(ROUNDINGS * torch.finfo(kind).eps for kind in kinds)])


def difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference over all tensors, relative to the largest finite value of its tensor.

    Infinite where the number of tensors or a shape differs; equal infinities and NaN are equal.
    """
    if [value.shape for value in found] != [other.shape for other in expected]:
        return float("inf")
    gaps = [0.0]
    for value, other in zip(found, expected, strict=True):
        left, right = (tensor.detach().to("cpu", torch.cdouble) for tensor in (value, other))
        same = (left == right) | (left.isnan() & right.isnan())
        scale = torch.where(right.isfinite(), right, 0).abs()
        if not same.all():
            gaps.append(((left - right)[~same].abs().max() / scale.max().clamp_min(1e-30)).item())
    return max(gaps, key=lambda gap: (gap != gap, gap))


def shapes(example: Example) -> list[tuple[int, ...]]:
    """The shapes of an example's tensors, for a message."""
    return [tuple(tensor.shape) for tensor in example.tensors]


def way_out(axes: Sequence[FreeAxis]) -> str:
    """How to do without free axes, to end a message with; empty if there are none."""
    ways = ["give dynamic_batch=False"] if any(axis.name == BATCH for axis in axes) else []
    others = ", ".join(repr(axis.name) for axis in axes if axis.name != BATCH)
    ways += [f"leave {others} out of dynamic_axes"] if others else []
    return f" If it is about sizes, {' or '.join(ways)}." if ways else ""


def in_short(error: BaseException) -> str:
    """Class and first line of an error, as a sentence."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}".rstrip(".:") + "."
