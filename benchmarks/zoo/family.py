"""One family of networks in the zoo: how it is made and called, and which span is replaced."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, nn

if TYPE_CHECKING:
    from collections.abc import Callable


WAYS = ("fx", "export", "eager")
"""The backends of ``tk.swap``, in the order in which ``how="auto"`` tries them."""
GRAPHS, NO_FX, EAGER = WAYS[:2], WAYS[1:], WAYS[2:]

Inputs = tuple[Any, ...] | dict[str, Any]
"""Arguments of a model, by position or by name."""


@dataclass(frozen=True)
class Family:
    """One row of the zoo."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[Generator, int], Inputs]
    """Generator and batch size → arguments."""
    start: str
    end: str
    refuses: str | None = None
    """Pattern of the reason for which the span cannot be replaced; None if it must be."""
    exports: bool | str = True
    """Whether the edited model becomes a ``.pt2`` program, or the pattern of why it does not."""
    ways: tuple[str, ...] = WAYS
    """The backends that can do it; ``how="auto"`` takes the first."""
    needs: str | None = None
    """The package that the family comes from."""

    @property
    def missing(self) -> bool:
        """Whether the package is not installed."""
        return self.needs is not None and importlib.util.find_spec(self.needs) is None

    def model(self) -> nn.Module:
        """Always the same weights, in eval mode; the global random state stays as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.build().eval()

    def sample(self, seed: int, batch: int = 2) -> Inputs:
        """Always the same arguments for one seed."""
        return self.inputs(Generator().manual_seed(seed), batch)

    def replaced(self) -> list[str]:
        """Layers whose parameters must be gone: items of one container after start, up to end."""
        (head, _, first), (tail, _, last) = self.start.rpartition("."), self.end.rpartition(".")
        if head == tail and first.isdigit() and last.isdigit():
            return [f"{head}.{item}".lstrip(".") for item in range(int(first) + 1, int(last) + 1)]
        return [] if "#" in self.end else [self.end]
