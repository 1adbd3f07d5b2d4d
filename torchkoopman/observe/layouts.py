"""Layouts: how a layer's output becomes a state of shape ``(batch, positions, features)`` and back.

A layout is an einops pattern in words. One state row is one trajectory through depth: a sample of
an MLP, a token of a transformer, a pixel of a convolutional network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from einops import parse_shape, rearrange

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


@dataclass(frozen=True)
class Layout:
    """An einops pattern with sizes: a layer's output ⇄ ``(batch, positions, features)``."""

    pattern: str
    """``"<axes of the output> -> batch positions features"``; three groups on the right."""
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
                any axes, within one group. ``None`` takes :data:`DEFAULT_PATTERNS` by the number
                of axes.

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
            sizes = parse_shape(output, pattern.split("->")[0])
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"layout {pattern!r} does not fit an output of shape {tuple(output.shape)}: {error}"
            ) from error
        batch = pattern.split("->")[1].split()[0]
        return cls(pattern, tuple(item for item in sizes.items() if item[0] != batch))

    @property
    def features(self) -> int:
        """Number of features of a state."""
        last = _groups(self.pattern.split("->")[1])[-1]
        return math.prod(dict(self.sizes).get(axis, 1) for axis in last)

    @property
    def by_sample(self) -> str:
        """The pattern that makes one row of each sample, its positions one after the other."""
        left, right = (side.strip() for side in self.pattern.split("->"))
        batch, *rest = (axis for group in _groups(right) for axis in group if axis != "1")
        return f"{left} -> {batch} 1 ({' '.join(rest)})"

    def to_state(self, output: Tensor) -> Tensor:
        """``output`` as a state of shape ``(batch, positions, features)``."""
        return rearrange(output, self.pattern)

    def to_output(self, state: Tensor) -> Tensor:
        """The inverse of :meth:`to_state`.

        Only axes that were composed need their recorded sizes, so a plain token axis may be longer
        or shorter than it was when the layout was taken.
        """
        left, right = (side.strip() for side in self.pattern.split("->"))
        composed = {axis for group in _groups(right) if len(group) > 1 for axis in group}
        sizes = {axis: size for axis, size in self.sizes if axis in composed}
        return rearrange(state, f"{right} -> {left}", **sizes)


def _canonical(pattern: str, rank: int) -> str:
    """``pattern`` with ``...`` spelled out and three groups on the right."""
    if pattern.count("->") != 1:
        raise ValueError(
            f"layout {pattern!r} is not of the form 'axes -> batch positions features'."
        )
    left, right = (side.strip() for side in pattern.split("->"))
    if "..." in left:
        named = len(left.replace("...", " ").split())
        rest = " ".join(f"axis{index}" for index in range(named, rank))
        left, right = left.replace("...", rest), right.replace("...", rest)
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
    kept = [axis for group in groups for axis in group]
    if sorted(set(kept) - {"1"}) != sorted(set(left.split()) - {"1"}):
        raise ValueError(
            f"layout {pattern!r} must name the same axes on both sides, grouped on the right only: "
            "a layout rearranges, it loses nothing, so that a swap can undo it."
        )
    return f"{' '.join(left.split())} -> {' '.join(right.split())}"


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
