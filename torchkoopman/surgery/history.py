"""Records: an edited model knows what was swapped in it, and the way back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor, fx, nn

if TYPE_CHECKING:
    from torchkoopman.observe.trajectory import InputSpec

RECORDS, ORIGINAL = "torchkoopman", "torchkoopman.original"
"""Keys of an edited model's memory."""
MEMORY = "_torchkoopman"
"""Attribute that is the memory of a model that is no graph; a graph's is its ``meta``."""


@runtime_checkable
class SurrogateLike(Protocol):
    """What surgery needs to know of a surrogate.

    It may also have ``views``, a mapping from layer to how its output was read.
    """

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers it stands for, first in depth first."""

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
    """One swap: which module stands between which layers, and how it came there."""

    start: str
    """The layer whose output the module takes."""
    end: str
    """The layer whose output it gives."""
    module: str
    """Name of the submodule in the edited model."""
    how: str
    """``"fx"``, ``"export"`` or ``"eager"``."""
    why: str
    """Why the ways before it were not possible; empty for the first."""
    layers: tuple[str, ...]
    """The layers that were replaced."""
    notes: tuple[str, ...]
    """What to know of the edited model."""
    side_inputs: tuple[str, ...] | None
    """The values that were allowed to enter the span; None for the default."""
    keep_escapes: bool
    """Whether values inside the span may be used outside."""
    surrogate: str
    """Class of what was given to ``swap``."""
    card: dict[str, Any] | None
    """Description of a surrogate; None for a plain module."""
    config: dict[str, Any] | None
    """Structure of a surrogate, from which ``load`` rebuilds it; None for a plain module."""
    inputs: tuple[InputSpec, ...]
    """Shape and dtype of the model's positional tensor arguments; empty if unknown."""
    removed: int
    """Elements of parameters and buffers that were removed, each tensor counted once."""
    added: int
    """Elements of parameters and buffers that were added."""
    version: str
    """Version of torchkoopman."""

    @property
    def smaller(self) -> bool:
        """Whether fewer numbers were added than removed.

        A span may be worth replacing where they are not, to look at it or to save operations, so
        the record says it when printed, and no warning does; ``torchkoopman.rank_spans`` compares
        operations too.
        """
        return self.added < self.removed

    def __str__(self) -> str:
        notes = "".join(f"; {note}" for note in self.notes)
        if not self.smaller:
            notes = f", so the replacement is no smaller{notes}"
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


def memory(model: nn.Module) -> dict[str, Any]:
    """Where a model keeps its records; copied and pickled with it."""
    if isinstance(model, fx.GraphModule):
        return model.meta
    held: dict[str, Any] = vars(model).setdefault(MEMORY, {})
    return held


def swap_history(model: nn.Module) -> tuple[SwapRecord, ...]:
    """What was swapped in a model, first swap first; empty for a model without swaps.

    Example:
        >>> record = tk.swap_history(tk.swap(model, surrogate))[0]
        >>> record.start, record.end, record.how, record.removed  # four layers of 32 × 32 + 32
        ('1', '9', 'fx', 4224)

    Raises:
        TypeError: no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"a {type(model).__name__} is no model; give what swap() or load() gave.")
    held = model.meta if isinstance(model, fx.GraphModule) else vars(model).get(MEMORY, {})
    records: tuple[SwapRecord, ...] = held.get(RECORDS, ())
    return records


def tensors(model: nn.Module) -> dict[int, Tensor]:
    """The parameters and buffers of a model by identity, each once."""
    return {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}


def as_json(value: dict[str, Any]) -> dict[str, Any]:
    """The value as a file will give it back, so that a record is the same before and after."""
    read: dict[str, Any] = json.loads(json.dumps(value))
    return read
