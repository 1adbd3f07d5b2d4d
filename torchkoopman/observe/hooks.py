"""Hooks: small callables on modules that forget their pairing when they are copied."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, cast

import torch

from torchkoopman.observe.selection import Selected, common_ancestors

if TYPE_CHECKING:
    from collections import OrderedDict
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

    from torchkoopman.observe.pairing import Pairing


class Hook:
    """Passes one kind of event of one module on to a pairing, if that is still there.

    A copied or unpickled hook does nothing, and is the reason why a copied model does not stream.
    """

    may_be_lost = True
    """A graph of the model need not call it."""

    def __init__(
        self,
        pairing: object | None = None,
        event: str = "",
        name: str = "",
        compiled_calls: Tensor | None = None,
    ) -> None:
        self._pairing = None if pairing is None else weakref.ref(pairing)
        self._event = event
        self._name = name
        self._compiled_calls = compiled_calls

    def __call__(self, *arguments: Any) -> None:
        """Tell the pairing; return nothing, so that the model goes on unchanged."""
        # First: torch.compile records what follows it, and strict export must record nothing.
        if torch.compiler.is_dynamo_compiling():
            if not torch.compiler.is_exporting():
                self._noticed()
                if self._compiled_calls is not None:
                    self._compiled_calls.add_(1)  # part of the compiled program
            return
        pairing = None if self._pairing is None else self._pairing()
        if pairing is not None:
            getattr(pairing, self._event)(self._name, *arguments)

    def _noticed(self) -> None:
        """Runs as Python while the call is being compiled, and never afterwards."""
        pairing = None if self._pairing is None else self._pairing()
        if pairing is not None and self._event in ("enter", "read"):
            getattr(pairing, "compiled", lambda name: None)(self._name)

    # As torch.compiler.assume_constant_result says it, which costs an import of seconds.
    _noticed._dynamo_marked_constant = True  # type: ignore[attr-defined]

    @property
    def __name__(self) -> str:
        """None: asked for by ``torch.jit.script``, whose message this is; others take a default."""
        raise AttributeError(
            "torch.jit.script compiles a model's hooks too, and the hook of a probe is Python: "
            "script the model before attach(), or after the probe is detached."
        )

    def __reduce__(self) -> tuple[type[Hook], tuple[()]]:
        return Hook, ()


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


def read_last(modules: Iterable[nn.Module], pairing: object) -> None:
    """Have layers read behind hooks that others have added since, which may change an output."""
    for module in modules:
        hooks = cast("OrderedDict[int, Any]", module._forward_hooks)
        for hook in reversed(hooks.values()):
            if _is_of(hook, pairing):
                break
            if not isinstance(hook, Hook):  # those of other probes change nothing
                for key in [key for key, each in hooks.items() if _is_of(each, pairing)]:
                    hooks.move_to_end(key)
                break


def _is_of(hook: object, pairing: object) -> bool:
    return isinstance(hook, Hook) and hook._pairing is not None and hook._pairing() is pairing


def _sweep(module: nn.Module, pairing: object) -> None:
    """Take every hook of a pairing off a module, whoever holds its handle."""
    kept: list[dict[int, Any]] = [module._forward_hooks, module._forward_pre_hooks]
    own = [key for hooks in kept for key, hook in hooks.items() if _is_of(hook, pairing)]
    kept += [module._forward_hooks_with_kwargs, module._forward_pre_hooks_with_kwargs]
    for hooks in [*kept, module._forward_hooks_always_called]:
        for key in own:
            hooks.pop(key, None)


def _remove_all(handles: list[tuple[str, RemovableHandle]]) -> None:
    while handles:
        handles[-1][1].remove()
        handles.pop()
