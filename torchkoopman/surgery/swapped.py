"""Swapped graphs: graph modules that know what they hold, and refuse what would change nothing.

A graph is what a model did when it was made. Attributes are constants in it, methods and branches
on the mode are resolved. Where a user changes one of these afterwards, an error says so.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from torchkoopman.graphs.exported import refuse_other_arguments
from torchkoopman.graphs.frozen import storage_of
from torchkoopman.graphs.reads import Reads
from torchkoopman.graphs.side_effects import SideEffect
from torchkoopman.graphs.unchanged import Unchanged
from torchkoopman.observe.facts import PLAIN
from torchkoopman.surgery.history import ORIGINAL, RECORDS, Original
from torchkoopman.surgery.opened import (
    BESIDE,
    BOUND,
    CONSTANTS,
    READ,
    Opened,
    refuse_constant,
    refuse_hidden,
    refuse_mode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from torchkoopman.surgery.history import SwapRecord


class SwappedModule(fx.GraphModule):
    """A graph module whose records survive pickling; torch.fx itself drops ``meta`` there."""

    def __setattr__(self, name: str, value: Any) -> None:
        refuse_constant(self.__dict__.get("meta", {}).get(CONSTANTS, frozenset()), name)
        super().__setattr__(name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph.

        Raises:
            RuntimeError: a class that the graph was made of has changed since, or the arguments
                hold more or fewer tensors than the graph takes.
        """
        if torch.compiler.is_compiling():
            return super().__call__(*args, **kwargs)
        refuse_hidden(self, self.meta.get(CONSTANTS, frozenset()))
        given = pytree.tree_leaves((args, kwargs))
        self.meta.get(READ, Unchanged())(self, given)
        refuse_other_arguments(self.graph, args, kwargs)
        return super().__call__(*args, **kwargs)

    def train(self, mode: bool = True) -> SwappedModule:
        """Switch between training and evaluation, where the graph is right in both.

        Raises:
            RuntimeError: the graph holds what the model does in one mode only.
        """
        refuse_mode(self, self.meta.get(BOUND, False), mode)
        super().train(mode)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SwappedModule:
        with warnings.catch_warnings():  # torch's own, about copying the structure of its inputs
            warnings.simplefilter("ignore", FutureWarning)
            copied: Any = super().__deepcopy__(memo)
        assert isinstance(copied, SwappedModule)
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        if hasattr(self, "_guards_fn"):
            raise TypeError(
                f"this {type(self).__name__} is a program of torch.export, whose checks of input "
                "sizes cannot be pickled: save it with tk.export, as .pt2 or .safetensors."
            )
        rebuild, arguments = super().__reduce__()
        kept = {key: self.meta[key] for key in (RECORDS, BOUND, CONSTANTS) if key in self.meta}
        return _restore, (rebuild, arguments, type(self).__name__, kept)


def _restore(
    rebuild: Callable[..., fx.GraphModule],
    arguments: tuple[Any, ...],
    name: str,
    kept: dict[str, Any],
) -> SwappedModule:
    restored = rebuild(*arguments)
    edited = swapped_module(restored, restored.graph, name, restored)
    edited.meta.update(kept)
    if kept.get(BOUND):
        bind(edited)
    keep_together(edited, kept.get(RECORDS, ()))
    return edited


def swapped_module(
    root: nn.Module,
    graph: fx.Graph,
    name: str,
    model: nn.Module,
    numbers: Collection[int | None] = frozenset(),
) -> SwappedModule:
    """A graph module.

    Args:
        root: its submodules are taken from here, in the training mode each of them has.
        graph: what it computes.
        name: of its class.
        model: what the graph was made of.
        numbers: memory that numbers in the graph were read of; see :class:`Traced`.
    """
    edited = SwappedModule(root, graph, name)
    modes = {path: module.training for path, module in root.named_modules()}
    before = dict(model.named_modules(remove_duplicate=False))
    called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    inside = tuple(f"{path}." for path in called)
    opened = [module for path, module in before.items() if not f"{path}.".startswith(inside)]
    layers = {
        path: each
        for path, each in edited.named_modules()
        if path in before and f"{path}.".startswith(inside)
    }
    places = {path for path, _ in edited.named_modules() if path} & before.keys() - layers.keys()
    bypassed = any(type(before[path]).forward is not nn.Module.forward for path in places)
    reads = Reads(opened, layers, bypassed)
    if reads.unstable:
        raise SideEffect(
            f"the forward of {type(model).__name__} reads {', '.join(reads.unstable[:5])}, which "
            "may change with every call, and a graph would keep its present value: swap with "
            "how='eager'."
        )
    if reads.manners:
        raise SideEffect(
            f"{', '.join(reads.manners[:5])} overrides a method of nn.Module, and a graph would "
            "not have it: swap with how='eager'."
        )
    for path, module in edited.named_modules():  # torch.fx makes opened containers anew
        module.training = modes.get(path, root.training)
        if type(module) is nn.Module and path not in called:
            module.__class__ = Opened
            if path in before:
                vars(module)[CONSTANTS] = _constants(before[path], module, reads.names)
    edited.meta[RECORDS] = ()
    edited.meta[ORIGINAL] = Original()
    edited.meta[CONSTANTS] = _constants(model, edited, reads.names)
    held = model.meta.get(READ, Unchanged()) if isinstance(model, fx.GraphModule) else Unchanged()
    kept = {x.key: x for x in held.reads if type(x.key[0]) is not str or x.key[0] in layers}
    live = {storage_of(each) for each in _held_by(edited)}.difference(numbers)
    found = {key: each.beside(live) for key, each in reads.found.items()}
    every = tuple({**kept, **found}.values())
    edited.meta[READ] = Unchanged(every, held.plain or reads.plain)
    return edited


def _held_by(graph: nn.Module) -> list[Tensor]:
    """The tensors that a graph has as its parameters, buffers and plain attributes."""
    plain = (each for each in vars(graph).values() if isinstance(each, Tensor))
    return [*graph.parameters(), *graph.buffers(), *plain]


def keep_together(edited: nn.Module, records: Iterable[SwapRecord]) -> None:
    """Let the places in a graph switch the modules put in for layers that were within them.

    Args:
        edited: the model; nothing is done if it is no graph.
        records: its swaps.
    """
    if not isinstance(edited, SwappedModule):
        return
    modules = dict(edited.named_modules())
    for module in modules.values():
        module.__dict__.pop(BESIDE, None)
    for record in records:
        path = record.end.partition("#")[0]
        while path and not isinstance(modules.get(path), Opened):
            path = path.rpartition(".")[0]
        if path and record.module in modules:
            held = modules[path].__dict__
            held[BESIDE] = (*held.get(BESIDE, ()), modules[record.module])


def bind(edited: nn.Module) -> None:
    """Note that a graph is right in the mode it is in only."""
    assert isinstance(edited, fx.GraphModule)
    edited.meta[BOUND] = True
    for module in edited.modules():
        if isinstance(module, Opened):
            vars(module)[BOUND] = True


def is_bound(model: nn.Module) -> bool:
    """Whether a model is a graph that is right in the mode it is in only."""
    return isinstance(model, fx.GraphModule) and bool(model.meta.get(BOUND))


def _constants(before: nn.Module, after: nn.Module, names: set[str]) -> frozenset[str]:
    """Attributes of a module that its graph has read, or asked for in vain, and holds no more."""
    held = before.meta if isinstance(before, fx.GraphModule) else vars(before)
    read: frozenset[str] = held.get(CONSTANTS, frozenset())
    values = {name for name, each in vars(before).items() if isinstance(each, (*PLAIN, Tensor))}
    kept = {*after._parameters, *after._buffers, *after._modules}
    asked = {name for name in names - kept if not hasattr(fx.GraphModule, name)}
    return read | {name for name in (values | asked) - {BOUND} if name not in vars(after)}
