"""Hooks: small callables on modules that forget their pairing when they are copied."""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING, Any, cast

import torch

if TYPE_CHECKING:
    from collections import OrderedDict
    from collections.abc import Iterable

    from torch import Tensor, nn


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


def read_last(modules: Iterable[nn.Module], pairing: object) -> None:
    """Have layers read behind hooks that others have added since, which may change an output."""
    for module in modules:
        hooks = cast("OrderedDict[int, Any]", module._forward_hooks)
        for hook in reversed(list(hooks.values())):  # other threads may add some and remove some
            if is_of(hook, pairing):
                break
            if not isinstance(hook, Hook):  # those of other probes change nothing
                for key in [key for key, each in list(hooks.items()) if is_of(each, pairing)]:
                    with contextlib.suppress(KeyError):  # the probe was detached
                        hooks.move_to_end(key)
                break


def is_of(hook: object, pairing: object) -> bool:
    """Whether it is a hook of this pairing."""
    return isinstance(hook, Hook) and hook._pairing is not None and hook._pairing() is pairing
