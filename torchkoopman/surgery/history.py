"""Records: an edited model knows what was swapped in it, and the way back."""

from __future__ import annotations

import importlib.metadata
import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor, fx, nn

from torchkoopman.observe.facts import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torchkoopman.observe.trajectory import InputSpec
    from torchkoopman.observe.views import View

RECORDS, ORIGINAL = "torchkoopman", "torchkoopman.original"
BOUND, CONSTANTS = "torchkoopman.bound", "torchkoopman.constants"
"""Keys of an edited model's memory."""
MEMORY = "_torchkoopman"
"""Attribute that is the memory of a model that is no graph; a graph's is its ``meta``."""


@runtime_checkable
class SurrogateLike(Protocol):
    """What surgery needs to know of a surrogate."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers it stands for, first in depth first."""

    @property
    def views(self) -> Mapping[str, View]:
        """Layer → how its output was read; empty where states were given as they are."""

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Shape and dtype of the model's positional tensor arguments; empty if unknown."""

    def replacement(self, start: str | None = None, end: str | None = None) -> nn.Module:
        """The module that leads the output of ``start`` to that of ``end``."""

    def card(self) -> dict[str, Any]:
        """JSON-able description."""

    def config(self) -> dict[str, Any]:
        """JSON-able structure, enough to build an equal surrogate without its values."""


@dataclass(frozen=True)
class SwapRecord:
    """One swap: what stands where, and since when."""

    start: str
    """The layer whose output the module takes."""
    end: str
    """The layer whose output it gives."""
    module: str
    """Name of the submodule in the edited model."""
    how: str
    """The way: ``"fx"``, ``"export"`` or ``"eager"``."""
    why: str
    """Why not one of the ways before it; empty for the first."""
    layers: tuple[str, ...]
    """The layers that were replaced."""
    notes: tuple[str, ...]
    """What to know of the edited model."""
    side_inputs: tuple[str, ...] | None
    """What was allowed to enter the span; None for the default."""
    keep_escapes: bool
    """Whether values might escape from it."""
    surrogate: str
    """Class of what was given to ``swap``."""
    card: dict[str, Any] | None
    """Description of a surrogate; None for a plain module."""
    config: dict[str, Any] | None
    """Structure of a surrogate, from which ``load`` rebuilds it; None for a plain module."""
    inputs: tuple[InputSpec, ...]
    """Shape and dtype of the model's positional tensor arguments; empty if unknown."""
    removed: int
    """Numbers the model lost: elements of parameters and buffers, each tensor counted once."""
    added: int
    """Numbers it got."""
    version: str
    """Version of torchkoopman."""

    def __str__(self) -> str:
        notes = "".join(f"; {note}" for note in self.notes)
        return (
            f"{self.module}: {self.surrogate} from {self.start!r} to {self.end!r} by {self.how}, "
            f"{self.removed:,} numbers out, {self.added:,} in{notes}"
        )


class Original:
    """Holds the model as it was before a swap: shared by copies, left behind by files.

    It shares memory with the edited model that was made of it, so only what was replaced is extra.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self.model = model

    def __deepcopy__(self, memo: dict[int, Any]) -> Original:
        return self

    def __reduce__(self) -> tuple[type[Original], tuple[()]]:
        return Original, ()


class Opened(nn.Module):
    """What is left of a module that a graph has opened: a place for the modules within.

    Its plain attributes are part of the graph; setting one would change nothing, and is refused.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        refuse_constant(self, self.__dict__.get(CONSTANTS, frozenset()), name)
        super().__setattr__(name, value)


class SwappedModule(fx.GraphModule):
    """A graph module whose records survive pickling; torch.fx itself drops ``meta`` there."""

    def __setattr__(self, name: str, value: Any) -> None:
        refuse_constant(self, self.__dict__.get("meta", {}).get(CONSTANTS, frozenset()), name)
        super().__setattr__(name, value)

    def train(self, mode: bool = True) -> SwappedModule:
        """Switch between training and evaluation, where the graph is right in both.

        Raises:
            RuntimeError: the graph holds what the model does in one mode only.
        """
        if self.meta.get(BOUND) and mode != self.training:
            now, other = ("train", "eval") if self.training else ("eval", "train")
            raise RuntimeError(
                f"this graph holds what the model does in {now}() mode and does not do what it "
                f"does in {other}() mode: call {other}() on the original and swap again, or swap "
                "with how='eager', which keeps both."
            )
        super().train(mode)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SwappedModule:
        with warnings.catch_warnings():  # torch's own, about copying the structure of its inputs
            warnings.simplefilter("ignore", FutureWarning)
            copied: Any = super().__deepcopy__(memo)
        assert isinstance(copied, SwappedModule)
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        if hasattr(self, "_guards_fn"):
            raise TypeError(
                f"this {type(self).__name__} is a program of torch.export, whose checks of input "
                "sizes cannot be pickled: save it with tk.export, as .pt2 or .safetensors."
            )
        rebuild, arguments = super().__reduce__()
        kept = {key: self.meta[key] for key in (RECORDS, BOUND, CONSTANTS) if key in self.meta}
        return _restore, (rebuild, arguments, type(self).__name__, kept)


def _restore(
    rebuild: Callable[..., fx.GraphModule],
    arguments: tuple[Any, ...],
    name: str,
    kept: dict[str, Any],
) -> SwappedModule:
    edited = swapped_module(rebuild(*arguments), None, name)
    edited.meta.update(kept)
    return edited


def swapped_module(root: nn.Module, graph: fx.Graph | None, name: str) -> SwappedModule:
    """A graph module on the submodules of ``root``, in the training mode each of them has."""
    if graph is None:
        assert isinstance(root, fx.GraphModule)
        graph = root.graph
    edited = SwappedModule(root, graph, name)
    modes = {path: module.training for path, module in root.named_modules()}
    for path, module in edited.named_modules():  # torch.fx makes opened containers anew
        module.training = modes.get(path, root.training)
        if type(module) is nn.Module:
            module.__class__ = Opened
            vars(module)[CONSTANTS] = _constants(root.get_submodule(path), module)
    edited.meta[RECORDS] = ()
    edited.meta[ORIGINAL] = Original()
    edited.meta[CONSTANTS] = _constants(root, edited)
    return edited


def _constants(before: nn.Module, after: nn.Module) -> frozenset[str]:
    """Attributes of a module that its graph has read and holds no more."""
    read: frozenset[str] = vars(before).get(CONSTANTS, frozenset())
    return read | {
        name
        for name, value in vars(before).items()
        if name not in vars(after) and isinstance(value, (*PLAIN, Tensor))
    }


def refuse_constant(module: nn.Module, constants: frozenset[str], name: str) -> None:
    """Refuse to set what would have no effect.

    Raises:
        AttributeError: the graph holds the value that the attribute had.
    """
    if name in constants:
        raise AttributeError(
            f"{name!r} was read when this graph was made and is part of it, so setting it would "
            "change nothing: set it on the original and swap again, or swap with how='eager', "
            "which keeps the model's own code."
        )


def is_bound(model: nn.Module) -> bool:
    """Whether a model is a graph that is right in the mode it is in only."""
    return isinstance(model, fx.GraphModule) and bool(model.meta.get(BOUND))


def bind(edited: nn.Module) -> None:
    """Note that a graph is right in the mode it is in only."""
    memory(edited)[BOUND] = True


def memory(model: nn.Module) -> dict[str, Any]:
    """Where a model keeps its records; copied and pickled with it."""
    if isinstance(model, fx.GraphModule):
        return model.meta
    held: dict[str, Any] = vars(model).setdefault(MEMORY, {})
    return held


def swaps(model: nn.Module) -> tuple[SwapRecord, ...]:
    """What was swapped in a model, first swap first; empty for a model without swaps."""
    held = model.meta if isinstance(model, fx.GraphModule) else vars(model).get(MEMORY, {})
    records: tuple[SwapRecord, ...] = held.get(RECORDS, ())
    return records


def tensors(model: nn.Module) -> dict[int, Tensor]:
    """The parameters and buffers of a model by identity, each once."""
    return {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}


def version() -> str:
    """The installed version of torchkoopman."""
    try:
        return importlib.metadata.version("torchkoopman")
    except importlib.metadata.PackageNotFoundError:  # used from a bare checkout
        return "unknown"


def as_json(value: dict[str, Any]) -> dict[str, Any]:
    """As it will be read from a file, so that a record is the same before and after."""
    read: dict[str, Any] = json.loads(json.dumps(value))
    return read
