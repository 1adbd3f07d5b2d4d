"""Views: how one layer is read. What a probe read is what a swap replaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchkoopman.observe.layouts import Layout
from torchkoopman.observe.outputs import OutputChoice, choose_tensor
from torchkoopman.observe.places import Place, Step, kinds, leaves, read, spelled


@dataclass(frozen=True)
class View:
    """How a layer's output becomes its state: which of its tensors, in which layout."""

    layout: Layout
    """From the chosen tensor to ``(batch, positions, features)``."""
    place: Place = ()
    """Where in the output the tensor is; empty for the output itself."""
    structure: tuple[str, ...] = ()
    """The types of the containers on the way to it, outermost first."""
    function: str | None = None
    """Name of the function that made the tensor of the output, if one did. Such layers can be
    looked at and not swapped, since nothing can be put back through a function."""
    masked: bool = False
    """Whether there was a mask of the rows that count."""

    @classmethod
    def of(
        cls,
        output: object,
        choice: OutputChoice | View | None,
        pattern: str | None,
        layer: str,
        masked: bool = False,
    ) -> tuple[View, Tensor]:
        """The view of one output, and the tensor that is looked at.

        Args:
            output: whatever the layer returned.
            choice: which tensor of it, see :func:`look`.
            pattern: einops pattern from it to ``(batch, positions, features)``, see
                :meth:`Layout.of`; None takes that of ``choice`` if it is a view.
            layer: the layer's name, for errors.
            masked: whether a mask says which rows count.

        Raises:
            TypeError: no tensor, several to choose from, integers, or a view through a function.
            ValueError: nothing at the path, another structure than a view saw, or a layout that
                does not fit.
        """
        tensor = look(output, choice, layer)
        return cls.onto(tensor, output, choice, pattern, layer, masked), tensor

    @classmethod
    def onto(
        cls,
        tensor: Tensor,
        output: object,
        choice: OutputChoice | View | None,
        pattern: str | None,
        layer: str,
        masked: bool = False,
        whole: Tensor | None = None,
    ) -> View:
        """The view of the tensor that :func:`look` chose; arguments as for :meth:`of`.

        ``whole`` is the state where the tensor is one process's part of it.

        Raises:
            ValueError: a layout that does not fit.
        """
        if isinstance(choice, View):
            pattern = choice.layout.pattern if pattern is None else pattern
        if pattern is None and tensor.ndim < 2:
            raise ValueError(
                f"layer {layer!r} gave an output of shape {tuple(tensor.shape)}, without a batch "
                "beside its features. Did you pass a Dataset instead of a DataLoader, or a sample "
                "instead of a batch? If its one axis is the batch, say so: "
                "layout='batch -> batch 1 1'."
            )
        try:
            layout = Layout.of(tensor if whole is None else whole, pattern)
        except ValueError as error:
            raise ValueError(f"layer {layer!r}: {error}") from error
        if isinstance(choice, View):
            return cls(layout, choice.place, choice.structure, masked=masked)
        if choice is not None and not isinstance(choice, str):
            name = getattr(choice, "__name__", type(choice).__name__)
            return cls(layout, function=name, masked=masked)
        place = place_of(output, tensor, choice)
        return cls(layout, place, kinds(output, place), masked=masked)

    def find(self, output: Any) -> Tensor | None:
        """What is at the place, if it is a tensor in containers of the same types.

        Quick, for every forward pass; :func:`find_state` is strict and says what differs.
        """
        for step, kind in zip(self.place, self.structure, strict=True):
            if type(output).__name__ != kind:
                return None
            if isinstance(output, dict) and not step.field and step.key not in output:
                return None  # a defaultdict would make an entry
            try:
                output = getattr(output, str(step.key)) if step.field else output[step.key]
            except (LookupError, AttributeError):
                return None
        return output if isinstance(output, Tensor) else None

    @property
    def path(self) -> str:
        """The place as ``output=`` takes it: ``"0.hidden"``; empty for the output itself."""
        return spelled(self.place)

    @property
    def source(self) -> str:
        """The path, or ``"function NAME"``; empty for the output itself."""
        return self.path if self.function is None else f"function {self.function}"

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
        where = where if self.function is None else self.source
        return f"{where}, {self.layout.pattern}{', masked' if self.masked else ''}"


OutputOption = OutputChoice | View | Mapping[str, OutputChoice | View]
"""What ``output=`` takes: one choice for all layers, or ``{name or wildcard: choice}``."""
LayoutOption = str | Mapping[str, str]
"""What ``layout=`` takes: one einops pattern for all layers, or ``{name or wildcard: pattern}``."""


def look(output: object, choice: OutputChoice | View | None, layer: str) -> Tensor:
    """The tensor that a choice means.

    A view reads it where it read it before, in the same structure; a path, a function, or the rule
    for want of both choose as in :func:`choose_tensor`.

    Raises:
        TypeError: no tensor, several to choose from, integers, or a view through a function.
        ValueError: nothing at the path, or another structure than the view saw.
    """
    if isinstance(choice, View):
        output, choice = read(output, find_state(output, layer, choice)), None
    return choose_tensor(output, choice, layer)


def place_of(output: object, tensor: Tensor, path: str | None = None) -> Place:
    """Where a tensor that was chosen from an output is in it.

    The same tensor may be at several places: a path says which is meant, by default the first.
    """
    found = (place for place, leaf in leaves(output) if leaf is tensor)
    return next(place for place in found if path is None or spelled(place) == path)


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
    return place_of(output, choose_tensor(output, known or None, layer), known or None)


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
