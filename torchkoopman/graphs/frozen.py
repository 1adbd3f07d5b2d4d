"""Values of the model's own tensors that tracing reads once, and a graph would hold for ever.

``float(self.largest)`` is a number of the trace; the buffer may be written in the next call, or
loaded with another value. Layers that stay a single node run their own code, so only the forward of
opened modules is concerned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from torchkoopman.graphs.side_effects import SideEffect

if TYPE_CHECKING:
    from collections.abc import Iterable


class Frozen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows what is computed of a model's parameters and buffers while it is traced."""

    def __init__(self, root: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names: dict[int, str] = {}
        self._held: list[Tensor] = []
        for name, tensor in (*root.named_parameters(), *root.named_buffers()):
            self._follow(tensor, name)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = self._source(pytree.tree_leaves((args, kwargs)))
        if name and func is torch.ops.aten._local_scalar_dense.default:
            raise SideEffect(
                f"the model's forward reads a number out of {name!r}, and a graph would hold the "
                "one of now: keep it as a tensor, move that into a layer, or swap with "
                "how='eager'."
            )
        result = func(*args, **(kwargs or {}))
        if name:
            for each in pytree.tree_leaves(result):
                if isinstance(each, Tensor):
                    self._follow(each, name)
        return result

    def refuse(self, constants: Iterable[Any]) -> None:
        """Refuse constants of a trace that were computed of the model's own tensors.

        Raises:
            SideEffect: there is one.
        """
        if name := self._source(constants):
            raise SideEffect(
                f"the model's forward computes something of {name!r} alone, and a graph would hold "
                "what comes out now: move that into a layer, or swap with how='eager'."
            )

    def _source(self, values: Iterable[Any]) -> str:
        """Name of the parameter or buffer that one of the values was computed of, if any."""
        storages = (_storage(each) for each in values if isinstance(each, Tensor))
        return next((self._names[key] for key in storages if key in self._names), "")

    def _follow(self, tensor: Tensor, name: str) -> None:
        key = _storage(tensor)
        if key is not None:
            self._names.setdefault(key, name)
            self._held.append(tensor)  # or another storage might get its place


def _storage(tensor: Tensor) -> int | None:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse ones, and those without memory
        return None
