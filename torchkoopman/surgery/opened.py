"""Places in a graph for the modules that it has opened, and what may not be set on a graph."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn

BOUND, CONSTANTS, READ = "torchkoopman.bound", "torchkoopman.constants", "torchkoopman.read"
"""Keys of a graph's ``meta``: it is right in one mode only; names of attributes that it holds; what
it has read of classes."""


BESIDE = "torchkoopman.beside"
"""Attribute of a place in a graph: the modules that were put in for layers which were within."""


class Opened(nn.Module):
    """What is left of a module that a graph has opened: a place for the modules within.

    The graph does not call it, and its attributes are part of the graph.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        refuse_constant(self.__dict__.get(CONSTANTS, frozenset()), name)
        super().__setattr__(name, value)

    def train(self, mode: bool = True) -> Opened:
        """Switch the modules within, and those put in for some; see :meth:`SwappedModule.train`."""
        refuse_mode(self, self.__dict__.get(BOUND, False), mode)
        super().train(mode)
        for module in self.__dict__.get(BESIDE, ()):
            module.train(mode)
        return self

    def _never_called(self, *given: Any, **options: Any) -> NoReturn:
        raise RuntimeError(
            "this module is a place for others in a graph, and the graph does not call it, so a "
            "hook on it would never run: hook the whole model, a layer that the graph calls, or "
            "swap with how='eager', which keeps the model's own code."
        )

    register_forward_hook = register_forward_pre_hook = _never_called
    register_full_backward_hook = register_full_backward_pre_hook = _never_called


def refuse_mode(module: nn.Module, bound: bool, mode: bool) -> None:
    """Refuse another mode than that of a graph which is right in one only."""
    if bound and mode != module.training:
        now, other = ("train", "eval") if module.training else ("eval", "train")
        raise RuntimeError(
            f"this graph holds what the model does in {now}() mode and does not do what it does in "
            f"{other}() mode: call {other}() on the original and swap again, or swap with "
            "how='eager', which keeps both."
        )


def refuse_hidden(module: nn.Module, constants: frozenset[str]) -> None:
    """Refuse what was set past ``__setattr__``, here and in the places within."""
    for name in constants & vars(module).keys():
        refuse_constant(constants, name)
    for each in module._modules.values():
        if isinstance(each, Opened):
            refuse_hidden(each, vars(each).get(CONSTANTS, frozenset()))


def refuse_constant(constants: frozenset[str], name: str) -> None:
    """Refuse to set an attribute that is part of the graph."""
    if name in constants:
        raise AttributeError(
            f"{name!r} was read when this graph was made and is part of it, so setting it would "
            "change nothing: set it on the original and swap again, or swap with how='eager', "
            "which keeps the model's own code."
        )
