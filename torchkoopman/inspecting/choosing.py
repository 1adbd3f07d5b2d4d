"""Which layers are inspected: those asked for, or the blocks that repeat in the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchkoopman.inspecting.chosen import Chosen, Skipped, listed
from torchkoopman.inspecting.runs import runs_of
from torchkoopman.inspecting.stretches import (
    NEVER,
    State,
    alike,
    hidden,
    iterated,
    stretch_of,
    unreadable,
    worth,
)
from torchkoopman.observe.costs import short
from torchkoopman.observe.names import split_call
from torchkoopman.observe.selection import select

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from torchkoopman.inspecting.first_pass import FirstPass
    from torchkoopman.inspecting.runs import Run
    from torchkoopman.inspecting.stretches import Stretch
    from torchkoopman.observe.selection import Layers


def asked_for(model: nn.Module, seen: FirstPass, layers: Layers) -> Chosen:
    """The layers that the user gave; without those whose rows are other points than the others'.

    Raises:
        ValueError: they match no module, or fewer than two of them can be looked at together.
        TypeError: no layers at all, or one whose output has no state.
    """
    states, skipped = list[State](), list[Skipped]()
    for each in select(model, layers):
        calls = seen.calls.get(each.name, [])
        several = each.calls is not None or len(calls) > 1
        for number, call in enumerate(calls):
            if each.calls is None or number in each.calls:
                states.append(State(f"{each.name}#{number}" if several else each.name, call))
            if call.why is not None:
                raise call.why
        if not calls:
            skipped.append(Skipped(f"layer {each.name!r}", NEVER))
    states.sort(key=lambda state: state.call.ended)
    kept, apart = alike(states)
    if len(kept) < 2:
        shapes = {state.name: state.call.shape for state in states}
        raise ValueError(
            f"inspect() got layers={layers!r}, of which no two give states of the same points one "
            f"after the other: (batch, positions, features) are {shapes}. Choose two layers of one "
            "resolution or more."
        )
    names = tuple(state.name for state in kept)
    said = f"{len(names)} layers, as asked: {listed(names)}"
    return Chosen(names, _widths(kept), kept[0].points[1], said, (*skipped, *apart))


def repeated(model: nn.Module, seen: FirstPass) -> Chosen:
    """The longest run of siblings that pass their states on, and the state before the first.

    Raises:
        ValueError: there is none; it lists what the model has.
    """
    runs = runs_of(model)
    stretches = [found for run in runs if (found := stretch_of(run, seen)) is not None]
    stretches = [each for each in stretches if each.chained or len(each.states) > 2]
    stretches += iterated(model, seen)
    outermost = [each for each in stretches if not any(hidden(each, other) for other in stretches)]
    taken = max(outermost, key=worth, default=None)
    for run in runs:
        # What cannot be read must not give way to a part of it, or to less.
        error = unreadable(run, seen)
        if error and (not taken or taken.run.within(run) or len(run.blocks) > len(taken.states)):
            raise error
    if taken is None:
        raise ValueError(_nothing(model, seen, runs))
    states, count = list(taken.states), len(taken.states)
    first, call = split_call(taken.run.blocks[0][0])
    kind = "the longest run of siblings" if call is None else "one module called again and again"
    said = f"{count} blocks, {_shortened(taken)}, {kind}"
    before = None if taken.first else seen.fed_by(first)
    fed = None if before is None else seen.once(before)
    if before is not None and fed is not None and fed.shape == states[0].call.shape:
        states.insert(0, State(before, fed))
        said += f"; before them {before!r}, whose output the first of them takes"
    if not taken.chained:
        said += "; what runs between two of them is part of the step"
    rest = [each for each in outermost if each is not taken]
    others = [str(each.run) for each in rest if 2 * len(each.states) > len(taken.states)]
    if others:
        said += f"; not looked at: {listed(others[:3])}, for which give layers="
    names = tuple(state.name for state in states)
    return Chosen(names, _widths(states), states[0].points[1], said, taken.skipped)


def _shortened(taken: Stretch) -> str:
    """The run, as far as it is taken."""
    if len(taken.states) == len(taken.run.blocks):
        return str(taken.run)
    return f"{taken.states[0].name!r} … {taken.states[-1].name!r} of {taken.run}"


def _widths(states: Sequence[State]) -> tuple[int, ...]:
    return tuple(0 if state.call.shape is None else state.call.shape[2] for state in states)


def _nothing(model: nn.Module, seen: FirstPass, runs: Sequence[Run]) -> str:
    """What the model has instead of repeated blocks, and the way out."""
    found = [f"{run}, {_why_not(run, seen)}" for run in runs]
    return (
        f"inspect() found no blocks that repeat in this {type(model).__name__}. "
        + (f"Runs that cannot be used: {listed(found)}. " if found else "")
        + f"Its modules are {listed(list(_candidates(model, seen)))}. Choose two layers or more "
        "whose outputs follow one another: layers=[name, …], a wildcard such as 'blocks.*', or a "
        "type such as nn.Linear."
    )


def _candidates(model: nn.Module, seen: FirstPass) -> Iterator[str]:
    """The modules that run, outermost first: name, class, calls and parameters of each."""
    names = sorted((name for name in seen.calls if name), key=lambda name: name.count("."))
    for name in names:
        module, calls = model.get_submodule(name), len(seen.calls[name])
        size = short(sum(parameter.numel() for parameter in module.parameters()))
        often = f", called {calls} times" if calls > 1 else ""
        yield f"{name!r} ({type(module).__name__}, {size} parameters{often})"


def _why_not(run: Run, seen: FirstPass) -> str:
    """Why a run is not usable."""
    shapes = [call.shape for name in run.layers if (call := seen.once(name)) and call.shape]
    if len(shapes) < 2:
        return "fewer than two of which run once in a forward pass"
    if len({shape[:2] for shape in shapes}) > 1:
        return "of differing positions"
    if len(run.blocks) == 2:
        return "the second of which does not take what the first gave"
    return "side by side, not one after another"
