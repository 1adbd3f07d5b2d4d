"""What tells of the moment: functions whose answer a graph would hold, though it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


def _autocast() -> tuple[Any, ...]:
    kinds = ("cpu", "cuda")
    return (*map(torch.is_autocast_enabled, kinds), *map(torch.get_autocast_dtype, kinds))


AMBIENT: dict[str, Callable[[], Any]] = {
    "is_grad_enabled": torch.is_grad_enabled,
    "is_inference_mode_enabled": torch.is_inference_mode_enabled,
    "are_deterministic_algorithms_enabled": torch.are_deterministic_algorithms_enabled,
    **dict.fromkeys((
        "is_autocast_enabled", "is_autocast_cpu_enabled",
        "get_autocast_dtype", "get_autocast_cpu_dtype", "get_autocast_gpu_dtype",
    ), _autocast),
    **dict.fromkeys((
        "get_default_dtype", "ones", "zeros", "empty", "full", "tensor", "as_tensor", "asarray",
        "arange", "linspace", "logspace", "eye", "scalar_tensor",
    ), torch.get_default_dtype),
}  # fmt: skip
"""Functions of torch that tell of the moment, or make what depends on it, and how to ask."""
UNSTABLE: dict[str, frozenset[str]] = {
    "time": frozenset(("time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic")),
    "datetime": frozenset(("now", "today", "utcnow")),
    "threading": frozenset(("get_ident", "current_thread")),
    "os": frozenset(("getpid", "open", "read", "listdir", "scandir", "stat")),
    "sys": frozenset(("modules",)),
    "builtins": frozenset(("getattr", "vars", "globals", "eval", "exec", "__import__", "open")),
    "importlib": frozenset(("import_module", "reload", "__import__")),
    **dict.fromkeys(("io", "_io", "codecs", "gzip", "bz2", "lzma"), frozenset(("open",))),
    "numpy": frozenset(("load", "loadtxt", "genfromtxt", "fromfile", "memmap")),
    **dict.fromkeys(("torch", "torch.serialization"), frozenset(("load", "from_file"))),
}
"""Functions, by package, that tell another value at each call or in each thread: clocks, and what
reads files or imports by a name that the code does not hold."""
LAYOUT = frozenset(("is_contiguous", "stride", "storage_offset", "data_ptr", "is_pinned"))
"""Methods that tell how a tensor lies in memory, which is fixed in a graph."""
HIDDEN = {
    "variables": frozenset(("globals", "eval", "exec", "__import__", "import_module", "open")),
    "attributes": frozenset(("import_module", "read_text", "read_bytes")),
    "of_others": frozenset(("open",)),
}
"""Functions that read what no name in the code tells of, by the kind of names they have in it."""
MANNERS = (
    "__setattr__", "_apply", "to", "float", "double", "half", "bfloat16", "cpu", "cuda",
    "requires_grad_", "zero_grad",
)  # fmt: skip
"""Methods of nn.Module that change a model, and which a graph has of nn.Module."""
