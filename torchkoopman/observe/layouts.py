"""Layouts: how a layer's output becomes a state of shape ``(batch, positions, features)`` and back.

A layout is an einops pattern in words. One state row is one trajectory through depth: a sample of
an MLP, a token of a transformer, a pixel of a convolutional network. A pooled layout averages over
axes, which is for looking: nothing can be put back through a mean.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import parse_shape, rearrange, reduce
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_PATTERNS = {
    1: "batch -> batch 1 1",
    2: "batch features -> batch 1 features",
    3: "batch positions features -> batch positions features",
    4: "batch channels height width -> batch (height width) channels",
    5: "batch channels depth height width -> batch (depth height width) channels",
}
"""The pattern taken when none is given, by the number of axes of the output.

Rank 3 is read as ``(batch, tokens, features)``, as transformers have it, and ranks 4 and 5 as
channels-first images and volumes, as torch's convolutions have them.
"""


_ORDERED = (nn.RNNBase, nn.MultiheadAttention)
_SEQUENTIAL = (
    *_ORDERED,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.Transformer,
)
"""Modules that are told which axis is the batch."""


@dataclass(frozen=True)
class Layout:
    """An einops pattern with sizes: a layer's output ⇄ ``(batch, positions, features)``."""

    pattern: str
    """``"<axes of the output> -> batch positions features"``; three groups on the right. If pooled,
    with ``", mean over <axes>"`` behind it."""
    sizes: tuple[tuple[str, int], ...]
    """Every named axis of the output but the batch, with its size when last seen."""

    @classmethod
    def of(cls, output: Tensor, pattern: str | None = None) -> Layout:
        """The layout of one output.

        Args:
            output: a layer's output.
            pattern: an einops pattern whose right side has three groups, or two, which are read as
                ``batch features`` with one position. The batch is the axis that comes first on
                the right, wherever it stands on the left (``"t b d -> b t d"``). ``...`` stands for
                any axes, within one group. ``"b c h w -> b c, mean over h w"`` averages over axes,
                so that layers of different resolution have the same positions. ``None`` takes
                :data:`DEFAULT_PATTERNS` by the number of axes.

        Raises:
            ValueError: no default for this rank, or a pattern that does not fit the output.
        """
        if pattern is None:
            if output.ndim not in DEFAULT_PATTERNS:
                raise ValueError(
                    f"an output of shape {tuple(output.shape)} has no default layout (those exist "
                    f"for {min(DEFAULT_PATTERNS)} to {max(DEFAULT_PATTERNS)} axes); give an einops "
                    "pattern such as 'batch ... -> batch 1 (...)'."
                )
            pattern = DEFAULT_PATTERNS[output.ndim]
        pattern = _canonical(pattern, output.ndim)
        try:
            sizes = parse_shape(output, _sides(pattern)[0])
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"layout {pattern!r} does not fit an output of shape {tuple(output.shape)}: {error}"
            ) from error
        batch = _sides(pattern)[1].split()[0]
        return cls(pattern, tuple(item for item in sizes.items() if item[0] != batch))

    @property
    def features(self) -> int:
        """Number of features of a state."""
        last = _groups(_sides(self.pattern)[1])[-1]
        return math.prod(dict(self.sizes).get(axis, 1) for axis in last)

    @property
    def by_sample(self) -> str:
        """The pattern that makes one row of each sample, its positions one after the other."""
        left, right, pooled = _sides(self.pattern)
        batch, *rest = (axis for group in _groups(right) for axis in group if axis != "1")
        return f"{left} -> {batch} 1 ({' '.join(rest)}){_averaging(pooled)}"

    @property
    def pooled(self) -> tuple[str, ...]:
        """The axes that are averaged over."""
        return tuple(_sides(self.pattern)[2].split())

    def to_state(self, output: Tensor) -> Tensor:
        """``output`` as a state of shape ``(batch, positions, features)``."""
        left, right, pooled = _sides(self.pattern)
        if not pooled:
            return rearrange(output, f"{left} -> {right}")
        if output.dtype.itemsize < torch.float32.itemsize:
            output = output.float()  # a mean in bfloat16 is wrong in the third digit
        return reduce(output, f"{left} -> {right}", "mean")

    def to_output(self, state: Tensor) -> Tensor:
        """The inverse of :meth:`to_state`.

        Only axes that were composed need their recorded sizes, so a plain token axis may be longer
        or shorter than it was when the layout was taken.

        Raises:
            ValueError: the layout averages over axes.
        """
        left, right, pooled = _sides(self.pattern)
        if pooled:
            raise ValueError(
                f"nothing can be put back through the layout {self.pattern!r}: a mean."
            )
        composed = {axis for group in _groups(right) if len(group) > 1 for axis in group}
        sizes = {axis: size for axis, size in self.sizes if axis in composed}
        return rearrange(state, f"{right} -> {left}", **sizes)


def refuse_time_major(module: nn.Module, output: Tensor, layer: str) -> None:
    """Refuse the default for a module of torch's that has the batch on the second axis.

    Raises:
        ValueError: it is one, and its output is a batch of sequences.
    """
    if output.ndim != 3 or not isinstance(module, _SEQUENTIAL):
        return
    first = (each.batch_first for each in module.modules() if isinstance(each, _ORDERED))
    if next(first, True):
        return
    raise ValueError(
        f"layer {layer!r} is a {type(module).__name__} with batch_first=False: its output "
        f"{tuple(output.shape)} has the positions first and the batch second. Say so of all layers "
        "that have: layout='t b d -> b t d', or layout={layer: 't b d -> b t d'}."
    )


def _canonical(pattern: str, rank: int) -> str:
    """``pattern`` with ``...`` spelled out and three groups on the right."""
    if pattern.count("->") != 1:
        raise ValueError(
            f"layout {pattern!r} is not of the form 'axes -> batch positions features'."
        )
    left, right, pooled = _sides(pattern)
    if re.search(r"[()]", re.sub(r"\([^()]*\)", "", right)):
        raise ValueError(f"layout {pattern!r} has a bracket that is not closed, or one in another.")
    if "..." in left:
        named = len(left.replace("...", " ").split())
        rest = " ".join(f"axis{index}" for index in range(named, rank))
        left, right, pooled = (side.replace("...", rest) for side in (left, right, pooled))
    groups = _groups(right)
    if len(groups) == 2:
        first, last = (f"({' '.join(group)})" if len(group) > 1 else group[0] for group in groups)
        right, groups = f"{first} 1 {last}", [groups[0], ["1"], groups[1]]
    if len(groups) != 3 or len(groups[0]) != 1 or groups[0][0] not in left.split():
        raise ValueError(
            f"layout {pattern!r} must end in three groups, 'batch positions features', the first "
            "of them one axis alone, the batch: a state keeps its samples apart so that labels and "
            "masks can find them. Tokens are 'b t d -> b t d', flattened maps 'b ... -> b 1 (...)'."
        )
    named_axes = [axis for group in [*groups, pooled.split()] for axis in group if axis != "1"]
    if sorted(named_axes) != sorted(set(left.split()) - {"1"}):
        raise ValueError(
            f"layout {pattern!r} must name the same axes on both sides, grouped on the right only: "
            "a layout rearranges, it loses nothing, so that a swap can undo it. To average over "
            "axes, for looking, name those behind it: 'b c h w -> b c, mean over h w'."
        )
    return f"{' '.join(left.split())} -> {' '.join(right.split())}{_averaging(pooled)}"


def _sides(pattern: str) -> tuple[str, str, str]:
    """Axes of the output, groups of the state, and the axes that are averaged over."""
    arrow, *pooled = re.split(r"\s*,\s*mean\s+over\s", pattern, maxsplit=1)
    left, right = arrow.split("->")
    return left.strip(), right.strip(), " ".join(" ".join(pooled).split())


def _averaging(pooled: str) -> str:
    return f", mean over {pooled}" if pooled else ""


def _groups(side: str) -> list[list[str]]:
    """The axes of each group of one side of a pattern: ``"b (h w) c"`` → ``[[b], [h, w], [c]]``."""
    groups: list[list[str]] = []
    inside = False
    for word in side.replace("(", " ( ").replace(")", " ) ").split():
        if word == "(":
            inside = True
            groups.append([])
        elif word == ")":
            inside = False
        elif inside:
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups
