"""The reference: the original under hooks, which is what a swap means.

A hook on the layer ``start`` keeps its state, a hook on ``end`` puts what the module makes of it in
the place of that layer's own. An edited model must do exactly what this one does, and is held
against it: so wiring and a poor module are never confused.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from torchkoopman.graphs.nodes import labelled, labelled_node
from torchkoopman.observe.capture import is_recomputing
from torchkoopman.observe.example import MASK, argument_names
from torchkoopman.observe.names import named_module, split_call, which_call
from torchkoopman.observe.places import filled, read
from torchkoopman.observe.randomness import random_draws, random_states, set_random_states
from torchkoopman.observe.views import View, find_state
from torchkoopman.surgery.edited import copied

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torchkoopman.observe.places import Place

Known = View | str | None
"""How a layer's state was chosen: by a view, by a path, or by the rule."""


@dataclass
class Reference:
    """A model with a module between two layers' outputs, by hooks; every layer still runs."""

    model: nn.Module
    """A copy, which gets the hooks."""
    put_in: nn.Module
    start: str
    end: str
    known: Mapping[str, Known]
    aligned: bool = False
    """Whether what the span draws at random is drawn again by what comes after it."""
    places: dict[str, Place] = field(default_factory=dict)
    """Where the two layers' states are in what they return."""
    states: dict[str, Any] = field(default_factory=dict)
    """The first states of the two layers, ``end``'s as the model itself computes it."""
    entered: list[Any] = field(default_factory=list)
    """What the module was given, call by call."""
    drew: bool = False
    """Whether anything between the two outputs drew random numbers."""
    written: bool = False
    """Whether the model writes into the state of ``start`` after that layer has returned it."""
    refusal: Exception | None = None
    """Why there can be no such swap, found while the model ran."""

    def __post_init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._state: Any = None
        self._mask: Tensor | None = None
        self._draws: Any = None
        self._random: Any = None
        self.model.register_forward_pre_hook(self._begin, with_kwargs=True, prepend=True)
        self._left: list[tuple[Tensor, int]] = []
        self.model.register_forward_hook(self._finish)
        graph = labelled(self.model)
        for layer, hook in ((self.start, self._leave_start), (self.end, self._leave_end)):
            if graph is None:
                watched, index = named_module(self.model, layer), split_call(layer)[1]
            else:
                watched, index = watch(self.model, graph[1], layer), 0
            watched.register_forward_hook(self._at(layer, index or 0, hook))

    def check_calls(self) -> None:
        """See that the two layers were called, and how often their names allow.

        Raises:
            ValueError: a layer that was not called, or several times without ``#k``.
        """
        if labelled(self.model) is None:
            for layer in (self.start, self.end):
                which_call(self.model, layer, self._counts[layer])
        if self.end not in self.places and self.start in self.places:
            raise ValueError(
                f"there is no span from {self.start!r} to {self.end!r}: {self.end!r} has given its "
                f"output when {self.start!r} gives its own (names swapped?)."
            )

    def _begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._counts.clear()
        self._state = None
        named = {**dict(zip(argument_names(module), args, strict=False)), **kwargs}
        self._mask = named[MASK] if isinstance(named.get(MASK), Tensor) else None

    def _finish(self, module: nn.Module, args: Any, output: Any) -> None:
        changed = any(state._version != version for state, version in self._left)
        self.written = self.written or changed
        self._left.clear()

    def _at(self, layer: str, index: int, hook: Callable[[Any], Any]) -> Callable[..., Any]:
        def called(module: nn.Module, args: Any, output: Any) -> Any:
            if not is_recomputing():
                self._counts[layer] += 1
                if self._counts[layer] != index + 1:
                    return None
            try:
                return hook(output)
            except (TypeError, ValueError) as error:
                self.refusal = self.refusal or error
                raise

        return called

    def _leave_start(self, output: Any) -> None:
        state = read(output, self._place(self.start, output))
        self._state = _cloned(state)
        if is_recomputing():  # for checkpoints, which compare what is kept for the gradients
            return
        self.states.setdefault(self.start, _cloned(state, detached=True))
        self.entered.append(_cloned(state, detached=True))
        if isinstance(state, Tensor):
            self._left.append((state, state._version))
        self._draws = random_draws()
        self._random = random_states() if self.aligned else None

    def _leave_end(self, output: Any) -> Any:
        if self._state is None:
            return None
        place = self._place(self.end, output)
        expected = read(output, place)
        self.states.setdefault(self.end, _cloned(expected, detached=True))
        self.drew = self.drew or self._draws != random_draws()
        if self.aligned:
            set_random_states(self._random)
        made = self._made()
        self._check(made, expected)
        return filled(output, place, made)

    def _place(self, layer: str, output: Any) -> Place:
        if layer not in self.places:
            self.places[layer] = find_state(output, layer, self.known.get(layer))
        return self.places[layer]

    def _made(self) -> Any:
        masks = (self._mask,) if getattr(self.put_in, "takes_mask", False) else ()
        try:
            made = self.put_in(self._state, *masks)
            return copied(made) if made is self._state else made
        except Exception as error:  # the module is the user's
            raise Misfit(
                f"the module put in fails on the output of {self.start!r}, "
                f"{_described(self._state)}: {type(error).__name__}: {_first_line(error)}. It was "
                "made for another layer or another model."
            ) from error

    def _check(self, made: Any, expected: Any) -> None:
        tensors = isinstance(made, Tensor) and isinstance(expected, Tensor)
        same = tensors or type(made) is type(expected)
        if same and isinstance(made, Tensor):
            same = (made.shape, made.dtype) == (expected.shape, expected.dtype)
        if not same:
            raise Misfit(
                f"the module put in makes {_described(made)} of the output of {self.start!r}, "
                f"{_described(self._state)}, but {self.end!r} gives {_described(expected)}, and "
                "the layers after it expect that. Choose the layers it was made for, or put a "
                "module around it that returns this."
            )


class Misfit(ValueError):  # noqa: N818 (as DirtyCut)
    """The module does not fit between the two layers; no way of swapping changes that."""


def watch(model: nn.Module, nodes: dict[str, fx.Node], layer: str) -> nn.Module:
    """A module that passes on a layer's output, in a graph that has no modules."""
    assert isinstance(model, fx.GraphModule)
    node, name = labelled_node(nodes, layer), f"_watch_{len(model._modules)}"
    model.add_module(name, nn.Identity())
    with model.graph.inserting_after(node):
        watched = model.graph.call_module(name, (node,))
    node.replace_all_uses_with(watched, delete_user_cb=lambda user: user is not watched)
    model.recompile()
    return model.get_submodule(name)


def _cloned(value: Any, detached: bool = False) -> Any:
    def clone(tensor: Tensor) -> Tensor:
        return (tensor.detach() if detached else tensor).clone()

    return pytree.tree_map_only(Tensor, clone, value)


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
