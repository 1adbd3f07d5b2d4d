"""Values of the model's own tensors that tracing reads once, and a graph would hold for ever.

``float(self.largest)`` is a number of the trace; the buffer may be written in the next call, or
loaded with another value. So is the answer to whether two buffers are equal, and the size of what a
mask selects. Layers that stay a single node run their own code, so only the forward of opened
modules is concerned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from torchkoopman.graphs.side_effects import SideEffect

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

DEPENDENT = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
"""Tags of operations of which a number, a truth value or a size depends on values."""
READING = frozenset(
    getattr(Tensor, name)
    for name in ("tolist", "numpy", "__array__", "__dlpack__", "__repr__", "__deepcopy__")
)
"""Methods that take values out of a tensor without an operation."""
NUMBERS = READING | {
    getattr(Tensor, name)
    for name in ("item", "__float__", "__int__", "__bool__", "__index__", "__complex__")
}
"""Methods that take values out of a tensor."""


class Frozen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows what is computed of a model's own tensors, and of others, while it is traced."""

    def __init__(self, root: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names: dict[int, str] = {}
        self._sources: dict[int, frozenset[int]] = {}
        """Memory → the memory, from outside of the trace, of what it was computed of."""
        self.numbers: set[int] = set()
        """Memory from outside of the trace of which numbers were taken, or constants computed."""
        self._held: list[Tensor] = []
        self._methods = Taking(READING, self.refuse_reading)
        for name, tensor in (*root.named_parameters(), *root.named_buffers()):
            self._follow(tensor, name)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = pytree.tree_leaves((args, kwargs))
        if DEPENDENT.intersection(func.tags) and not _by_place(func, args):
            self.refuse_reading(given)
        name, sources = self._source(given), self._computed_of(given)
        result = func(*args, **(kwargs or {}))
        written = given if func._schema.is_mutable else []
        for each in (*pytree.tree_leaves(result), *written):
            if isinstance(each, Tensor):
                self._follow(each, name, sources)
        return result

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]
        try:
            self._methods.__enter__()  # type: ignore[no-untyped-call]
        except BaseException:  # an interrupt, say: nobody else would end this mode
            super().__exit__(None, None, None)  # type: ignore[no-untyped-call]
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._methods.__exit__(*error)  # type: ignore[no-untyped-call]
        finally:
            super().__exit__(*error)  # type: ignore[no-untyped-call]

    def refuse_reading(self, values: Sequence[Any]) -> None:
        """Refuse to take Python values, or sizes, out of the model's own tensors.

        Raises:
            SideEffect: one of the values is such a tensor, or computed of one.
        """
        if name := self._source(values):
            raise SideEffect(
                f"the model's forward reads a number or a size out of the values of {name!r}, and "
                "a graph would keep its present value: keep it as a tensor, move that into a "
                "layer, or swap with how='eager'."
            )
        self.numbers |= self._computed_of(values)

    def refuse(self, constants: Iterable[Any]) -> None:
        """Refuse constants of a trace that were computed of the model's own tensors.

        Raises:
            SideEffect: there is one.
        """
        constants = list(constants)
        if name := self._source(constants):
            raise SideEffect(
                f"the model's forward computes something of {name!r} alone, and a graph would hold "
                "the present result: move that into a layer, or swap with how='eager'."
            )
        live = {storage_of(each) for each in constants if isinstance(each, Tensor)}
        self.numbers |= self._computed_of(constants) - live

    def _source(self, values: Iterable[Any]) -> str:
        """Name of the parameter or buffer that one of the values was computed of, if any."""
        storages = (storage_of(each) for each in values if isinstance(each, Tensor))
        return next((self._names[key] for key in storages if key in self._names), "")

    def _computed_of(self, values: Iterable[Any]) -> frozenset[int]:
        storages = (storage_of(each) for each in values if isinstance(each, Tensor))
        known = (self._sources.get(key, {key}) for key in storages if key is not None)
        return frozenset[int]().union(*known)

    def _follow(self, tensor: Tensor, name: str, sources: frozenset[int] = frozenset()) -> None:
        key = storage_of(tensor)
        if key is None:
            return
        if name:
            self._names.setdefault(key, name)
        if key not in sources:  # not a view
            self._sources[key] = sources
        self._held.append(tensor)  # or another storage might get its place


class Taking(TorchFunctionMode):
    """Within it somebody is told what is given to some methods of tensors."""

    def __init__(self, methods: Collection[Any], told: Callable[[Sequence[Any]], None]) -> None:
        super().__init__()
        self._methods, self._told = methods, told

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._methods:
            self._told(args)
        return func(*args, **(kwargs or {}))


def _by_place(func: Any, args: Any) -> bool:
    """Whether an operation that may take a mask is given whole numbers: its sizes are theirs."""
    if func is not torch.ops.aten.index.Tensor:
        return False
    indices = [each for each in args[1] if each is not None]
    return all(each.dtype not in (torch.bool, torch.uint8) for each in indices)


def storage_of(tensor: Tensor) -> int | None:
    """Which memory a tensor is on; None where that cannot be asked."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse ones, and those without memory
        return None
