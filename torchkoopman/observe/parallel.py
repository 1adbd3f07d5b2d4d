"""Parallel modules: the calls of those whose outputs a parallel style decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from torchkoopman.observe.capture import is_recomputing
from torchkoopman.observe.placements import Placed, parallel_modules

if TYPE_CHECKING:
    from torch import nn

    from torchkoopman.observe.passes import Passes


class Hooks(Protocol):
    """The hooks of a probe, as far as they are known here."""

    def listen(self, name: str, module: nn.Module, listener: object) -> None:
        """Tell a listener of each call of a module, and of what it returned."""

    def remove(self) -> None:
        """Take every hook off."""


class Parallel:
    """Is told when the parallel modules of a model are entered and left."""

    def __init__(self, passes: Passes) -> None:
        self.hooks: Hooks | None = None
        """Those of the probe."""
        self.modules: dict[nn.Module, Placed] = {}
        self.followed: set[str] = set()
        """Streams known to be whole by the graph of the gradients."""
        self._searched: set[str] = set()
        self._passes = passes

    def begin(self, hooks: Hooks) -> None:
        """The probe's hooks were put on, and none of them is on a parallel module yet."""
        self.hooks, self.modules, self._searched = hooks, {}, set()

    def search(self, name: str, module: nn.Module) -> None:
        """From its first forward pass on, be told of the parallel modules within a module."""
        if name in self._searched or self.hooks is None:
            return
        self._searched.add(name)
        found = parallel_modules(module)
        for path, each in module.named_modules():
            if each in found and each not in self.modules:
                self.hooks.listen(".".join(filter(None, (name, path))), each, self)
        self.modules |= found

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Called before a parallel module runs."""
        forward = None if is_recomputing() else self._passes.current()
        if forward is not None:
            forward.flow.entered(name, module)

    def leave(self, name: str, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """Called after a parallel module returned."""
        forward = None if is_recomputing() else self._passes.current()
        if forward is not None:
            forward.flow.passed(name, module, output)
