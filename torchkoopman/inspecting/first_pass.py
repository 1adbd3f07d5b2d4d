"""What one forward pass shows: which modules run, what states they give, and which feed which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from torchkoopman.observe.alone import evaluating, within
from torchkoopman.observe.batches import called, parts
from torchkoopman.observe.layouts import refuse_time_major
from torchkoopman.observe.places import leaves
from torchkoopman.observe.selection import per_layer
from torchkoopman.observe.views import View
from torchkoopman.observe.watch import moved

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torchkoopman.observe.watch import Watch

    Shape = tuple[int, int, int]

NOTHING = -1
"""Number of no tensor."""


@dataclass
class Call:
    """One call of a module."""

    takes: int
    """Number of the first tensor among its arguments."""
    gives: tuple[int, ...] = ()
    """Numbers of the tensors that it returned."""
    shape: Shape | None = None
    """``(batch, positions, features)`` of the state; None where it could not be read."""
    why: Exception | None = None
    """Why it could not be read."""
    ended: int = 0
    """Its place among the ends of all calls."""


@dataclass(frozen=True)
class FirstPass:
    """The calls of every module of a model, in one forward pass."""

    calls: Mapping[str, list[Call]]
    """Module → its calls that came to an end; those that never ran are not there."""

    def once(self, name: str) -> Call | None:
        """The one call of a module; None if it ran several times, or never."""
        known = self.calls.get(name, [])
        return known[0] if len(known) == 1 else None

    def fed_by(self, name: str) -> str | None:
        """The module whose output a module's first call takes as it is, if there is one.

        Of several that return the same tensor, as a container and its last part do, the last to
        return it; a module that takes what it returns, as dropout in evaluation, counts too.
        """
        fed = next(iter(self.calls.get(name, ())), None)
        if fed is None or fed.takes == NOTHING:
            return None
        givers = [
            (call.ended, giver)
            for giver, calls in self.calls.items()
            for call in calls
            if giver and fed.takes in call.gives and not giver.startswith(f"{name}.")
            if giver != name and call.ended < fed.ended and not name.startswith(f"{giver}.")
        ]
        return max(givers)[1] if givers else None


def first_pass(watch: Watch, batch: Any) -> FirstPass:
    """Run a model once on a batch, as a watch does, and see what its modules do.

    Raises:
        TypeError: a batch that the model does not take.
        ValueError: a batch on the meta device.
    """
    model, seen = watch.model, _Seen(watch)
    args, kwargs, _ = parts(None if watch.forward else model, batch)
    with ExitStack() as stack:
        for name, module in model.named_modules():
            for handle in (
                module.register_forward_pre_hook(partial(seen.enter, name), with_kwargs=True),
                module.register_forward_hook(partial(seen.leave, name)),
            ):
                stack.callback(handle.remove)
        stack.enter_context(within(object()))
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.no_grad())
        if watch.forward is not None:
            watch.forward(model, batch)
        else:
            called(model, *moved(model, args, kwargs), batch)
    return FirstPass(seen.ended)


class _Seen:
    """What hooks saw so far; tensors are numbered, and none of them is kept."""

    def __init__(self, watch: Watch) -> None:
        self.ended: dict[str, list[Call]] = defaultdict(list)
        names = [name for name, _ in watch.model.named_modules()]
        self._outputs = _by_module(watch.output, names, "output")
        self._layouts = _by_module(watch.layout, names, "layout")
        self._numbers: Any = WeakIdKeyDictionary()
        self._count = count()
        self._open: dict[str, list[Call]] = defaultdict(list)
        self._ends = count()

    def enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A module is called."""
        self._open[name].append(Call(next(self._numbered((args, kwargs)), NOTHING)))

    def leave(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        """It returns."""
        call = self._open[name].pop()
        call.gives, call.ended = tuple(self._numbered(output)), next(self._ends)
        pattern, choice = self._layouts.get(name), self._outputs.get(name)
        try:
            view, tensor = View.of(output, choice, pattern, name)
            if pattern is None and not isinstance(choice, View):
                refuse_time_major(module, tensor, name)
            batch, positions, features = view.layout.to_state(tensor).shape
            call.shape = batch, positions, features
        except Exception as error:  # a choice need not fit what other modules give
            call.why = error
        self.ended[name].append(call)

    def _numbered(self, value: object) -> Iterator[int]:
        for _, leaf in leaves(value):
            if isinstance(leaf, Tensor):
                if leaf not in self._numbers:
                    self._numbers[leaf] = next(self._count)
                yield self._numbers[leaf]


def _by_module(option: Any, names: Sequence[str], argument: str) -> dict[str, Any]:
    """An option by module, where it is one for a whole module and not for one of its calls."""
    calls = [key for key in option if "#" in key] if isinstance(option, Mapping) else []
    found: dict[str, Any] = per_layer(option, names, argument, calls, "inspect")
    return found
