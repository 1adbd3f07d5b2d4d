"""Runs: siblings in a model that repeat, by their classes, one by one or in a pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from torchkoopman.observe.names import split_call
from torchkoopman.observe.selection import CONTAINERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LONGEST_PATTERN = 8
"""Siblings in a pattern at most: convolution, normalisation, activation, dropout, and so on."""


@dataclass(frozen=True)
class Run:
    """Siblings that repeat, each time the same classes in the same order."""

    kinds: tuple[str, ...]
    """Names of the classes of one block."""
    blocks: tuple[tuple[str, ...], ...]
    """The modules of each block, by name, with ``#k`` for the k-th call of one that is called again
    and again; the last of them gives the block's output."""
    parameters: int
    """Elements of all parameters in them."""
    container: bool
    """Whether a block is an ``nn.Sequential``, which may itself hold a run."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The module of each block whose output is the state after it."""
        return tuple(block[-1] for block in self.blocks)

    def within(self, other: Run) -> bool:
        """Whether it lies inside one of the other's blocks."""
        first = self.blocks[0][0]
        names = (split_call(name)[0] for block in other.blocks for name in block)
        return any(first.startswith(f"{name}.") for name in names)

    def __str__(self) -> str:
        kind = self.kinds[0] if len(self.kinds) == 1 else f"({', '.join(self.kinds)})"
        return f"{self.layers[0]!r} … {self.layers[-1]!r} ({len(self.blocks)} × {kind})"


def runs_of(model: nn.Module) -> list[Run]:
    """All runs of a model's modules that hold parameters, each as long as it goes."""
    return [
        run
        for name, module in model.named_modules()
        for run in _among(name, list(module.named_children()))
    ]


def _among(parent: str, children: Sequence[tuple[str, nn.Module]]) -> Iterator[Run]:
    """The runs among one module's children."""
    kinds = [type(child) for _, child in children]
    for period in range(1, min(_LONGEST_PATTERN, len(children) // 2) + 1):
        start = 0
        while start + 2 * period <= len(children):
            end = start + period
            while end < len(children) and kinds[end] is kinds[end - period]:
                end += 1
            count = (end - start) // period
            if count > 1 and not _repeats(kinds[start : start + period]):
                run = _run(parent, children[start : start + count * period], period)
                if run.parameters and not isinstance(children[start + period - 1][1], CONTAINERS):
                    yield run
            start = max(start + 1, end - period + 1)


def _run(parent: str, members: Sequence[tuple[str, nn.Module]], period: int) -> Run:
    names = [f"{parent}.{name}" if parent else name for name, _ in members]
    held = {parameter for _, module in members for parameter in module.parameters()}
    return Run(
        tuple(type(module).__name__ for _, module in members[:period]),
        tuple(tuple(names[k : k + period]) for k in range(0, len(names), period)),
        sum(parameter.numel() for parameter in held),
        period == 1 and isinstance(members[0][1], nn.Sequential),
    )


def _repeats(kinds: Sequence[type]) -> bool:
    """Whether a pattern is a shorter one several times over."""
    size = len(kinds)
    return any(
        size % period == 0 and list(kinds) == list(kinds[:period]) * (size // period)
        for period in range(1, size)
    )
