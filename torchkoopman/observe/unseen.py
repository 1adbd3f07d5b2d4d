"""Unseen: modules whose layers no hook can see, or tell apart: compiled and replicated ones."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from torchkoopman.observe.warned import warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_REPLICATED = (
    "nn.DataParallel runs copies of the model in threads, whose hooks are those of the original: "
    "each sees a part of the batch, and none of them all."
)
_UNWRAP = (
    "Run the module itself, `.module` of the nn.DataParallel, on one device while the probe is "
    "on; or use DistributedDataParallel, one process a device, and merge with fitter.sync(). "
    "(transformers' Trainer wraps models so where it sees several GPUs: CUDA_VISIBLE_DEVICES=0.)"
)


_WRAPPERS = ("torch.distributed", "torch._dynamo", "torch.nn.parallel")
"""Packages whose modules return what the module within them does."""


def refuse_unseen(model: nn.Module, names: Iterable[str]) -> None:
    """Refuse layers that are compiled or replicated, or within what is.

    Raises:
        ValueError: a module named, or one around it, is compiled, in whole or in its forward,
            scripted or traced by torch.jit, or an ``nn.DataParallel``.
    """
    _refuse_scripted(model, "")
    around = (part for each in names for part in (*ancestors(each), each))
    for name in dict.fromkeys(around):
        module = model.get_submodule(name)
        called = f"module {name!r}" if name else "the model"
        _refuse_scripted(module, name)
        if isinstance(module, nn.DataParallel):
            raise ValueError(f"attach() cannot watch {called}: {_REPLICATED} {_UNWRAP}")
        # By name: importing torch._dynamo for an isinstance costs seconds.
        if any(kind.__name__ == "OptimizedModule" for kind in type(module).__mro__):
            raise ValueError(
                f"attach() cannot see into {called}: it is compiled (torch.compile), and hooks in "
                "compiled code never fire. Attach to the eager module, `._orig_mod` of the "
                "compiled one, and call that one while the probe is on."
            )
        if getattr(module, "_compiled_call_impl", None) is not None:
            raise ValueError(
                f"attach() cannot see into {called}: it was compiled in place (.compile()), and "
                "hooks in compiled code never fire. Attach to an eager copy: copy.deepcopy(model) "
                "before compiling it, or a fresh model with the same state_dict()."
            )
        forward: Any = module.forward
        # torch.compiler.disable leaves the same mark as torch.compile, and one of its own.
        disabled = getattr(forward, "_torchdynamo_disable", False)
        if hasattr(forward, "_torchdynamo_orig_callable") and not disabled:
            lightning = getattr(module, "_compiler_ctx", None) is not None
            undone = (
                "Lightning did so for fit(torch.compile(module)): undo it with "
                "lightning.pytorch.utilities.compile.to_uncompiled(module), and fit(module)."
                if lightning
                else "Take it back, `del module.forward` or the like, and attach to that."
            )
            raise ValueError(
                f"attach() cannot see into {called}: its forward is compiled (torch.compile), and "
                f"hooks in compiled code never fire. {undone}"
            )


def _refuse_scripted(module: nn.Module, name: str) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        called = f"module {name!r}" if name else "the model"
        raise ValueError(
            f"attach() cannot watch {called}: it is a {type(module).__name__} of torch.jit, which "
            "calls no hooks of Python. Attach to the module that it was scripted or traced from."
        )


def replaced(
    model: nn.Module, layers: Mapping[str, nn.Module]
) -> Iterator[tuple[str, nn.Module | None]]:
    """Layers whose name now means another module than it did, and which, if any.

    Wrappers of torch that return what they are around, as those of FSDP do, mean the same.
    """
    for name, before in layers.items():
        module: nn.Module | None = model
        for part in name.split(".") if name else ():
            module = None if module is None else module._modules.get(part)
        if module is not before and not _wraps(module, before):
            yield name, module


def _wraps(wrapper: nn.Module | None, module: nn.Module) -> bool:
    kind = type(wrapper).__module__.startswith(_WRAPPERS)
    return wrapper is not None and kind and any(each is module for each in wrapper.modules())


def warn_of_compiled(model: nn.Module, names: Iterable[str]) -> None:
    """Say so if somebody holds a compiled version of the model, or of a part around the layers.

    What was compiled and run before has no hooks in it, and its calls are not seen at all.
    What has not run yet, or not since a reset, is noticed when it is compiled.
    """
    frames = sys.modules.get("torch._dynamo.convert_frame")
    if frames is None or not frames.input_codes.seen:  # the search below takes a while
        return
    parts = dict.fromkeys(part for each in names for part in (*ancestors(each), each))
    modules = {id(module): name for name in parts for module in [model.get_submodule(name)]}
    for holder in gc.get_referrers(*map(model.get_submodule, parts)):
        inner = holder.get("_orig_mod") if isinstance(holder, dict) else None
        if id(inner) in modules:
            name = modules[id(inner)]
            called = f"module {name!r}" if name else "the model"
            warn(
                f"there is a compiled version of {called} (torch.compile), and attach() sees only "
                "calls of the model itself. If it has run before, its calls are not seen until "
                "torch._dynamo.reset(); after that they are counted, but not read."
            )
            return


def refuse_replica(module: nn.Module) -> None:
    """Refuse to watch a copy that ``nn.DataParallel`` made for one thread.

    Raises:
        RuntimeError: it is one.
    """
    if "_is_replica" in vars(module):
        raise RuntimeError(
            f"a probe was called in a replica of the {type(module).__name__} that it is on: "
            f"{_REPLICATED} {_UNWRAP}"
        )


def ancestors(name: str) -> list[str]:
    """Names of the modules around ``name``, outermost first: ``"a.b.c"`` → ``["", "a", "a.b"]``."""
    parts = name.split(".") if name else []
    return [".".join(parts[:depth]) for depth in range(len(parts))]
