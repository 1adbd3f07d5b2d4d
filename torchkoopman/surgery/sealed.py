"""Sealed states: what is handed from one stand-in to the next, and nobody else may read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ADVICE = (
    "The swap holds for the path that the example inputs took. Swap with keep_escapes=True, which "
    "keeps all layers running, choose a span without that branch, or give inputs of the same path."
)


class OffThePath(RuntimeError):  # noqa: N818 (where the call went)
    """A call of an edited model went another way than the one that was proven."""


METADATA = frozenset(
    getattr(Tensor, name).__get__
    for name in (
        "shape", "dtype", "device", "layout", "ndim", "requires_grad", "is_leaf", "grad_fn",
        "grad",
        "_version", "is_cuda", "is_meta", "is_sparse", "is_quantized", "is_nested", "itemsize",
        "nbytes", "output_nr", "is_cpu",
    )
) | {
    Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride, Tensor.storage_offset,
    Tensor.is_contiguous, Tensor.is_floating_point, Tensor.is_complex, Tensor.is_inference,
    Tensor.__len__, Tensor.ndimension, Tensor.nelement, Tensor.element_size, Tensor.get_device,
    torch.is_floating_point, torch.is_complex, torch.numel, torch.is_tensor,
    Tensor.detach, Tensor.requires_grad_, vars(torch._C.TensorBase)["requires_grad"].__set__,
    Tensor.as_subclass,
    Tensor.untyped_storage, Tensor.data_ptr, Tensor.register_hook, Tensor.__hash__,
}  # fmt: skip
"""What may be asked of a sealed tensor: what does not tell its values."""


class Sealed(Tensor):
    """A state between two stand-ins: only the next stand-in may read it.

    In the original model this is what an inner layer returns; here no such value exists.
    """

    layer = ""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Metadata alone; anything else is refused."""
        held = [each for each in (*args, *(kwargs or {}).values()) if isinstance(each, Sealed)]
        layer = held[0].layer if held else ""
        if func in METADATA:
            told: Any = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
            if isinstance(told, Sealed):
                told.layer = layer
            return told
        raise OffThePath(
            f"the output of layer {layer!r} is read by {getattr(func, '__name__', func)}, but that "
            f"layer is within a span that was replaced as a whole, so there is no such value. "
            f"{ADVICE}"
        )


def sealed(state: Tensor, layer: str) -> Tensor:
    """The same state, which only :func:`unsealed` makes readable."""
    closed = state.as_subclass(Sealed)
    closed.layer = layer
    return closed


def unsealed(state: Tensor) -> Tensor:
    """The state itself."""
    if not isinstance(state, Sealed):
        return state
    with torch._C.DisableTorchFunctionSubclass():
        return state.as_subclass(Tensor)
