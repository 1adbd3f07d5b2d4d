"""Stretches: the blocks of a run that one forward pass shows to follow one another."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from torchkoopman.inspecting.chosen import Skipped
from torchkoopman.inspecting.first_pass import NOTHING
from torchkoopman.inspecting.runs import Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from torchkoopman.inspecting.first_pass import Call, FirstPass

NEVER = "never called in the model's forward pass"


@dataclass(frozen=True)
class State:
    """A call of a layer, and the name of the stream that it makes."""

    name: str
    call: Call

    @property
    def points(self) -> tuple[int, ...]:
        """Batch and positions."""
        return () if self.call.shape is None else self.call.shape[:2]


@dataclass(frozen=True)
class Stretch:
    """Those blocks of a run that can be looked at together."""

    run: Run
    states: tuple[State, ...]
    first: int
    """Number of the first of them in the run."""
    chained: bool
    """Whether each block takes what the one before gave."""
    skipped: tuple[Skipped, ...]


def stretch_of(run: Run, seen: FirstPass) -> Stretch | None:
    """The longest part of a run whose states are of the same points, if any two are."""
    states, skipped = list[State](), list[Skipped]()
    numbers: list[int] = []
    for number, name in enumerate(run.layers):
        calls = seen.calls.get(name, [])
        if len(calls) == 1 and calls[0].shape is not None:
            states.append(State(name, calls[0]))
            numbers.append(number)
            continue
        why = str(calls[0].why) if len(calls) == 1 else NEVER
        if len(calls) > 1:
            why = f"called {len(calls)} times in one forward pass: give layers={name!r}"
        skipped.append(Skipped(f"layer {name!r}", why))
    entries = [seen.once(run.blocks[number][0]) for number in numbers]
    takes = [entry.takes for entry in entries if entry is not None and entry.takes != NOTHING]
    ordered = all(a.call.ended < b.call.ended for a, b in pairwise(states))
    if len(set(takes)) < len(takes) or not ordered:
        return None  # side by side, not one after another
    kept, apart = alike(states)
    if len(kept) < 2:
        return None
    first = states.index(kept[0])
    links = zip(kept[:-1], entries[first + 1 : first + len(kept)], strict=True)
    chained = all(entry is not None and entry.takes in state.call.gives for state, entry in links)
    return Stretch(run, tuple(kept), numbers[first], chained, (*skipped, *apart))


def iterated(model: nn.Module, seen: FirstPass) -> Iterator[Stretch]:
    """Modules that are called again and again, each time with what they gave before."""
    for name, calls in seen.calls.items():
        module = model.get_submodule(name)
        size = sum(parameter.numel() for parameter in module.parameters())
        chained = all(later.takes in earlier.gives for earlier, later in pairwise(calls))
        if len(calls) < 2 or not size or not chained or any(call.why for call in calls):
            continue
        names = [f"{name}#{number}" for number in range(len(calls))]
        run = Run((type(module).__name__,), tuple((each,) for each in names), size, False)
        states = [State(each, call) for each, call in zip(names, calls, strict=True)]
        kept, apart = alike(states)
        if len(kept) > 1:
            yield Stretch(run, tuple(kept), states.index(kept[0]), True, tuple(apart))


def alike(states: Sequence[State]) -> tuple[list[State], list[Skipped]]:
    """The longest stretch of states of the same points, and the others with the reason."""
    groups = [list(group) for _, group in groupby(states, key=lambda state: state.points)]
    kept = max(groups, key=len, default=[])
    rest = [state for group in groups if group is not kept for state in group]
    skipped = [
        Skipped(
            f"layer {state.name!r}",
            f"its states have (batch, positions) = {state.points}, and those of {kept[0].name!r} "
            f"{kept[0].points}: their rows are other points; give layers= to see them",
        )
        for state in rest
    ]
    return kept, skipped


def unreadable(run: Run, seen: FirstPass) -> Exception | None:
    """Why the state of its layers cannot be read, if that is so of two or more."""
    calls = [call for name in run.layers if (call := seen.once(name))]
    errors = [call.why for call in calls if call.why is not None]
    return errors[0] if len(errors) > 1 else None


def hidden(inner: Stretch, outer: Stretch) -> bool:
    """Whether a run is a part of another's blocks, and these are no mere containers.

    Blocks that do not take what the one before gave hide shorter chains only: an encoder and a
    decoder of one class are no two blocks.
    """
    if not inner.run.within(outer.run) or outer.run.container:
        return False
    return outer.chained or not inner.chained or len(outer.states) > len(inner.states)


def worth(stretch: Stretch) -> tuple[float, int]:
    """What decides between stretches: how many blocks, half of them if unchained; parameters."""
    count = len(stretch.states)
    return count if stretch.chained else count / 2, stretch.run.parameters
