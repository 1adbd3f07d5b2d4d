"""Chains: the layers of a span as they ran, each fed by the one before and by nothing between.

Where a model is not a graph, one run shows who feeds whom: a layer is fed by another if it is given
the very tensor that the other returned, unwritten since.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from torchkoopman.observe.names import named_module, which_call
from torchkoopman.observe.places import leaves, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchkoopman.observe.example import Example
    from torchkoopman.observe.places import Place


@dataclass
class Call:
    """One call of a module in a model's run."""

    name: str
    module: nn.Module
    began: int
    parent: Call | None
    inputs: tuple[tuple[Any, ...], dict[str, Any]]
    given: dict[int, tuple[int, Place]]
    """Identity of each tensor given → how often it had been written to, and where it is."""
    output: Any = None
    ended: int = -1
    versions: dict[int, int] = field(default_factory=dict)
    """Identity of each tensor returned → how often it had been written to."""


@dataclass(frozen=True)
class Link:
    """A layer of a chain: what must stand in for it."""

    name: str
    module: nn.Module
    """The layer itself."""
    argument: Place
    """Where in ``(args, kwargs)`` it is given the state."""
    state: Place
    """Where in its output the state is."""
    output: Any
    """What it returned."""
    inputs: tuple[tuple[Any, ...], dict[str, Any]]
    """What it was given."""


class NoChain(RuntimeError):  # noqa: N818 (as DirtyCut)
    """The layers between two outputs are not a chain of whole modules."""


def find_chain(
    model: nn.Module, example: Example, start: str, end: str, places: dict[str, Place]
) -> tuple[Link, ...]:
    """The chain of layers from the output of ``start`` to that of ``end``, in order.

    Args:
        model: it is run once, as it is; hooks are added and come off.
        example: its inputs.
        start: a name of ``model.named_modules()``, or ``name#k``.
        end: likewise; the last link.
        places: where the states are in the two layers' outputs.

    Raises:
        NoChain: something else is computed between, layers branch, or one runs several times.
    """
    calls = _run(model, example)
    first, last = (_call(model, calls, layer) for layer in (start, end))
    search = _Search(calls, last, places[end])
    links = search.chain(first, places[start])
    if links is None:
        furthest = search.furthest or first
        raise NoChain(
            f"the output of {furthest.name!r} is given to no layer on the way to {end!r} as "
            "it is: the model computes something outside of its modules there, such as a sum, or "
            "writes in place"
        )
    for link in links:
        count = sum(call.module is link.module for call in calls)
        if count > 1:
            raise NoChain(
                f"layer {link.name!r} is called {count} times in one forward pass, and a stand-in "
                "would be called as often"
            )
    return tuple(links)


def _run(model: nn.Module, example: Example) -> list[Call]:
    """Every call of a module, in the order in which they began."""
    calls: list[Call] = []
    active: list[Call] = []
    clock = iter(range(10**9))

    def before(module: nn.Module, args: Any, kwargs: Any, name: str) -> None:
        given = {
            id(leaf): (leaf._version, place)
            for place, leaf in reversed(list(leaves((args, kwargs))))
            if isinstance(leaf, Tensor)
        }
        parent = active[-1] if active else None
        active.append(Call(name, module, next(clock), parent, (args, kwargs), given))
        calls.append(active[-1])

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        call = active.pop()
        call.output, call.ended = output, next(clock)
        found = (leaf for _, leaf in leaves(output) if isinstance(leaf, Tensor))
        call.versions = {id(leaf): leaf._version for leaf in found}

    hooks = []
    for name, module in model.named_modules():
        hooks += [
            module.register_forward_pre_hook(
                lambda module, args, kwargs, name=name: before(module, args, kwargs, name),
                with_kwargs=True,
                prepend=True,
            ),
            module.register_forward_hook(after, with_kwargs=True),
        ]
    try:
        example.run(model)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _call(model: nn.Module, calls: list[Call], layer: str) -> Call:
    module = named_module(model, layer)
    own = [call for call in calls if call.module is module]
    return own[which_call(model, layer, len(own))]


class _Search:
    """Looks for the shortest chain of whole layers, outermost modules first.

    The shortest, since a layer may also read what was computed elsewhere, such as rotary tables.
    """

    def __init__(self, calls: list[Call], last: Call, place: Place) -> None:
        self.calls, self.last, self.place = calls, last, place
        self.furthest: Call | None = None
        """The latest layer that was reached."""
        self.found: dict[tuple[int, Place], tuple[Link, ...] | None] = {}

    def chain(self, fed_by: Call, place: Place) -> tuple[Link, ...] | None:
        """The links after a call whose state is at ``place`` of its output."""
        key = (fed_by.began, place)
        if key not in self.found:
            if self.furthest is None or fed_by.ended > self.furthest.ended:
                self.furthest = fed_by
            chains = self._chains(fed_by, read(fed_by.output, place))
            ended = fed_by is self.last
            self.found[key] = () if ended else min(chains, key=len, default=None)
        return self.found[key]

    def _chains(self, fed_by: Call, state: Tensor) -> Iterator[tuple[Link, ...]]:
        for call in self._readers(fed_by, state):
            argument = call.given[id(state)][1]
            for place in [self.place] if call is self.last else self._outputs(call):
                rest = self.chain(call, place)
                if rest is not None:
                    link = Link(call.name, call.module, argument, place, call.output, call.inputs)
                    yield (link, *rest)

    def _readers(self, fed_by: Call, state: Tensor) -> list[Call]:
        """The outermost calls, up to the last layer, that are given the state unwritten."""
        version = fed_by.versions[id(state)]
        found: list[Call] = []
        for call in self.calls:
            outer = any(call.began > each.began and call.ended < each.ended for each in found)
            timely = call.began > fed_by.ended and 0 <= call.ended <= self.last.ended
            if timely and not outer and call.given.get(id(state), (-1,))[0] == version:
                found.append(call)
        return found

    def _outputs(self, call: Call) -> list[Place]:
        """Where a call returned tensors, of which one may go on."""
        return [place for place, leaf in leaves(call.output) if isinstance(leaf, Tensor)]
