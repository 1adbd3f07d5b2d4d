"""Names: which module, and which of its calls, a layer's name stands for."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn


_UNWRAP = (
    "Names are those of the model itself: give what torch.compile wrapped (`._orig_mod`), or "
    "nn.DataParallel or DistributedDataParallel (`.module`). "
)


def split_call(layer: str) -> tuple[str, int | None]:
    """``"name#k"`` → ``("name", k)``; a bare name has ``None``."""
    name, mark, call = layer.partition("#")
    if mark and not call.isdecimal():
        raise ValueError(
            f"layer {layer!r}: what follows '#' is {call!r}, not the number of a call."
        )
    return name, int(call) if mark else None


def named_module(root: nn.Module, layer: str) -> nn.Module:
    """The module a layer's name stands for; all its names are accepted, also of a shared module."""
    name, _ = split_call(layer)
    modules: dict[str, nn.Module] = dict(root.named_modules(remove_duplicate=False))
    modules.pop("", None)
    if name not in modules:
        raise ValueError(
            f"{type(root).__name__} has no layer {name!r}; nearest: {nearest(name, modules)}. "
            f"{_UNWRAP if '_orig_mod' in modules or 'module' in modules else ''}"
            "Layers are those of model.named_modules()."
        )
    return modules[name]


def which_call(root: nn.Module, layer: str, count: int) -> int:
    """The number of the call that a layer's name means, of ``count`` calls in a forward pass."""
    name, call = split_call(layer)
    if not count:
        raise ValueError(
            f"layer {name!r} is never called in {type(root).__name__}'s forward: its weights may "
            "be used without calling it, or an earlier swap opened it. Choose one that is called."
        )
    calls = ", ".join(repr(f"{name}#{index}") for index in range(count))
    if call is None and count > 1:
        raise ValueError(f"layer {name!r} is called {count} times; choose one of {calls}.")
    if (call or 0) >= count:
        raise ValueError(f"layer {layer!r}: {name!r} is called {count} times only: {calls}.")
    return call or 0


def nearest(name: str, names: Iterable[str]) -> str:
    """The names most like one that does not exist, for an error message."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:3]
    return ", ".join(map(repr, near)) or "none"
