"""Views: how one layer is read. What a probe read is what a swap replaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from torchkoopman.observe.layouts import Layout
from torchkoopman.observe.outputs import choose_tensor
from torchkoopman.observe.places import Place, Step, kinds, leaves, read, spelled

if TYPE_CHECKING:
    from torchkoopman.observe.outputs import OutputChoice


@dataclass(frozen=True)
class View:
    """How a layer's output becomes its state: which tensor of it, in which layout."""

    layout: Layout
    """From the chosen tensor to ``(batch, positions, features)``."""
    place: Place = ()
    """Where in the output the tensor is; empty for the output itself."""
    structure: tuple[str, ...] = ()
    """The types of the containers on the way to it, outermost first."""
    function: str | None = None
    """Name of the function that made the tensor of the output, if one did: such a view is for
    looking, since nothing can be put back through a function."""
    masked: bool = False
    """Whether a mask said which rows count."""

    @classmethod
    def of(
        cls,
        output: object,
        choice: OutputChoice | None,
        pattern: str | None,
        layer: str,
        masked: bool = False,
    ) -> tuple[View, Tensor]:
        """The view of one output, and the tensor that is looked at.

        Args:
            output: whatever the layer returned.
            choice: which tensor of it, see :func:`choose_tensor`.
            pattern: einops pattern from it to ``(batch, positions, features)``, see
                :meth:`Layout.of`.
            layer: the layer's name, for errors.
            masked: whether a mask says which rows count.

        Raises:
            TypeError: no tensor, several to choose from, or integers.
            ValueError: nothing at the path, or a layout that does not fit.
        """
        tensor = choose_tensor(output, choice, layer)
        try:
            layout = Layout.of(tensor, pattern)
        except ValueError as error:
            raise ValueError(f"layer {layer!r}: {error}") from error
        if choice is not None and not isinstance(choice, str):
            name = getattr(choice, "__name__", type(choice).__name__)
            return cls(layout, function=name, masked=masked), tensor
        place = place_of(output, tensor)
        return cls(layout, place, kinds(output, place), masked=masked), tensor

    @property
    def path(self) -> str:
        """The place as ``output=`` takes it: ``"0.hidden"``; empty for the output itself."""
        return spelled(self.place)

    def config(self) -> dict[str, Any]:
        """JSON-able form, enough for :meth:`from_config`."""
        return {
            "pattern": self.layout.pattern,
            "sizes": [list(size) for size in self.layout.sizes],
            "place": [
                [step.key, step.field, sorted(map(list, step.spellings), key=str)]
                for step in self.place
            ],
            "structure": list(self.structure),
            "function": self.function,
            "masked": self.masked,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> View:
        """The view that :meth:`config` and JSON made ``config`` of."""
        place = tuple(
            Step(key, field, frozenset((bool(f), k) for f, k in spellings))
            for key, field, spellings in config["place"]
        )
        return cls(
            Layout(config["pattern"], tuple((axis, size) for axis, size in config["sizes"])),
            place,
            tuple(config["structure"]),
            config["function"],
            config["masked"],
        )

    def __str__(self) -> str:
        where = f"output {self.path!r}" if self.place else "output itself"
        where = where if self.function is None else f"function {self.function}"
        return f"{where}, {self.layout.pattern}{', masked' if self.masked else ''}"


def place_of(output: object, tensor: Tensor) -> Place:
    """Where a tensor that was chosen from an output is in it."""
    return next(place for place, leaf in leaves(output) if leaf is tensor)


def find_state(output: object, layer: str, known: View | str | None = None) -> Place:
    """Where the state is in a layer's output: as a view or a path says, else by the rule.

    Raises:
        TypeError: by the rule there is no state, or several tensors could be it; or the view is
            through a function.
        ValueError: the output has nothing there, or is of another structure than the view saw.
    """
    if isinstance(known, View):
        return _as_viewed(output, layer, known)
    if not known and [place for place, _ in leaves(output)] == [()]:
        return ()
    return place_of(output, choose_tensor(output, known or None, layer))


def _as_viewed(output: object, layer: str, view: View) -> Place:
    if view.function is not None:
        raise TypeError(
            f"layer {layer!r} was read through the function {view.function!r} (output=…), which is "
            "for looking: a module cannot be put back through it. Choose a tensor by its path to "
            'swap, such as output="0".'
        )
    found = kinds(output, view.place)
    if found != view.structure or not isinstance(read(output, view.place), Tensor):
        expected = " of ".join(reversed(view.structure)) or "Tensor"
        raise ValueError(
            f"layer {layer!r} was read at output={view.path!r} in a {expected}, but here returns a "
            f"{type(output).__name__} without it: fit on the model that is to be edited."
        )
    return view.place
