"""Unseen: modules whose layers no hook can see, or tell apart: compiled and replicated ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable

_REPLICATED = (
    "nn.DataParallel runs copies of the model in threads, whose hooks are those of the original: "
    "each sees a part of the batch, and none of them all."
)
_UNWRAP = (
    "Run the module itself, `.module` of the nn.DataParallel, on one device while the probe is "
    "on; or use DistributedDataParallel, one process a device, and merge with fitter.sync(). "
    "(transformers' Trainer wraps models so where it sees several GPUs: CUDA_VISIBLE_DEVICES=0.)"
)


def refuse_unseen(model: nn.Module, names: Iterable[str]) -> None:
    """Refuse layers that are compiled or replicated, or within what is.

    Raises:
        ValueError: a module named, or one around it, is compiled, or an ``nn.DataParallel``.
    """
    around = (part for each in names for part in (*ancestors(each), each))
    for name in dict.fromkeys(around):
        module = model.get_submodule(name)
        called = f"module {name!r}" if name else "the model"
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
