"""All hooks of one probe, put on and taken off together."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from torchkoopman.observe.hooks import Hook, is_of
from torchkoopman.observe.selection import Selected, common_ancestors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from torchkoopman.observe.pairing import Pairing


class HookSet:
    """Every hook of one probe, taken off together."""

    def __init__(self, model: nn.Module, selected: Iterable[Selected], pairing: Pairing) -> None:
        self._model, self._pairing = weakref.ref(model), weakref.ref(pairing)
        self._selected = list(selected)
        self._handles: list[tuple[str, RemovableHandle]] = []
        # Also when nobody refers to the set any more; at exit there is nothing left to tidy.
        self._finalizer = weakref.finalize(self, _remove_all, self._handles)
        self._finalizer.atexit = False
        self.put_on()

    def put_on(self) -> None:
        """Register every hook, unless they are on."""
        model, pairing, selected = self._model(), self._pairing(), self._selected
        if self._handles or model is None or pairing is None:
            return
        pairing.parallel.begin(self)
        around = common_ancestors(each.name for each in selected)
        try:
            self._register(model, around, pairing)
        except BaseException:  # an interrupt may come before a handle is noted
            _remove_all(self._handles)
            for module in [*(each.module for each in selected), *map(model.get_submodule, around)]:
                _sweep(module, pairing)
            raise

    def _register(self, model: nn.Module, around: Sequence[str], pairing: Pairing) -> None:
        # Layers before ancestors: if the model itself is a layer, it is read before it is left.
        for each in self._selected:
            self._add(
                each.name, each.module.register_forward_hook(Hook(pairing, "read", each.name))
            )
        for name in around:
            module = model.get_submodule(name)
            # Every forward pass calls the innermost, so compiled calls are counted there alone.
            calls = pairing.ledger.compiled_calls if name == around[-1] else None
            enter = Hook(pairing, "enter", name, calls)
            leave, abort = (Hook(pairing, event, name) for event in ("leave", "abort"))
            self._add(name, module.register_forward_pre_hook(enter, with_kwargs=True))
            self._add(name, module.register_forward_hook(leave))
            # The one kind of hook that is told of an exception; it comes after `leave`.
            self._add(name, module.register_forward_hook(abort, always_call=True))

    def listen(self, name: str, module: nn.Module, listener: object) -> None:
        """Tell a listener of each call of a module, and of what it returned."""
        enter, leave = (Hook(listener, event, name) for event in ("enter", "leave"))
        self._add(name, module.register_forward_pre_hook(enter))
        self._add(name, module.register_forward_hook(leave))

    def lost(self) -> tuple[str, ...]:
        """Names of the modules from which somebody else removed a hook, until :meth:`remove`."""
        hooks = [(name, handle.id, handle.hooks_dict_ref()) for name, handle in self._handles]
        gone = [name for name, key, present in hooks if present is None or key not in present]
        return tuple(dict.fromkeys(gone))

    def remove(self) -> None:
        """Take every hook off; a second time does nothing."""
        try:
            _remove_all(self._handles)
        finally:  # what an interrupt left
            _remove_all(self._handles)

    def _add(self, name: str, handle: RemovableHandle) -> None:
        self._handles.append((name, handle))


def _sweep(module: nn.Module, pairing: object) -> None:
    """Take every hook of a pairing off a module, whoever holds its handle."""
    kept: list[dict[int, Any]] = [module._forward_hooks, module._forward_pre_hooks]
    own = [key for hooks in kept for key, hook in hooks.items() if is_of(hook, pairing)]
    kept += [module._forward_hooks_with_kwargs, module._forward_pre_hooks_with_kwargs]
    for hooks in [*kept, module._forward_hooks_always_called]:
        for key in own:
            hooks.pop(key, None)


def _remove_all(handles: list[tuple[str, RemovableHandle]]) -> None:
    while handles:
        handles[-1][1].remove()
        handles.pop()
