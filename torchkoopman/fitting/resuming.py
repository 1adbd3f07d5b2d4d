"""``state_dict``, ``load_state_dict``, ``merge``: what learns can be stopped, moved and joined."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from torchkoopman.observe.interrupts import uninterrupted
from torchkoopman.observe.turns import turn_of

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = 3
"""Version of the states that are written; a state of another version is refused."""


class Resumable:
    """A fitter whose state is a value, and which takes in what another one has learnt."""

    def state_dict(self) -> dict[str, Any]:
        """All that the fitter has learnt, as a copy of tensors and plain types.

        ``torch.save`` writes it, and ``torch.load(path, weights_only=True)`` reads it. A fitter of
        the same options that loads it goes on as this one would, on the same machine bit by bit:
        generator, held-back rows, optimiser and steps still due are part of the state. Modules that
        were given (``tail``, observables) are compared by a digest: give them to the new one too.
        """
        with turn_of(self):
            return copy.deepcopy(live_state(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go on from what :meth:`state_dict` returned, whatever this fitter has seen until now.

        Tensors are copied and stay on their device (``map_location`` of ``torch.load`` moves them).
        A generator that was given to the fitter is set to where it stood.

        Raises:
            ValueError: the state of a fitter of another kind or other options, of an unknown
                version, with tensors of other shapes or types than were saved, or no state;
                nothing is changed then.
            TypeError: no dictionary.
        """
        kind = type(self).__name__
        if not isinstance(state, Mapping):
            raise TypeError(
                f"load_state_dict() takes what state_dict() of a {kind} returned, a dictionary; it "
                f"got a {type(state).__name__}."
            )
        if not {"version", "fitter", "options", "parts"} <= set(state):
            raise ValueError(
                f"this is not a state of a {kind}: it has {sorted(map(str, state))[:6]}. Give what "
                "state_dict() of a fitter returned."
            )
        if state["version"] != VERSION:
            raise ValueError(
                f"the state is of version {state['version']!r}, and this torchkoopman reads "
                f"version {VERSION}. Load it with the torchkoopman that wrote it."
            )
        if state["fitter"] != kind:
            raise ValueError(
                f"the state is of a {state['fitter']}, and this is a {kind}. Load it into a fitter "
                "of the same kind."
            )
        if difference := differing(state["options"], self._options()):
            raise ValueError(
                f"the state is of a {kind} with {difference} in this one. Make the fitter with the "
                "arguments of the one that the state is of."
            )
        if state.get("outline") != _outline(state["parts"]):
            raise ValueError(
                f"the state of a {kind} has tensors of other types or shapes than were saved: it "
                "was cast, cut or damaged. Load it as state_dict() returned it; moments are sums "
                "in float64, and rounded ones give another surrogate."
            )
        with turn_of(self), uninterrupted():
            fresh = copy.copy(self)
            try:
                fresh._load(copy.deepcopy(state["parts"]))
            except (KeyError, TypeError, AttributeError, RuntimeError, IndexError) as error:
                raise ValueError(
                    f"the state of a {kind} is damaged or was changed ({error!r}). Take an earlier "
                    "one."
                ) from error
            vars(self).update(vars(fresh))
        return self

    def merge(self, other: Self) -> Self:
        """Take in what another fitter has streamed, as if its rows had come here.

        Moments add up, and the samples of both become one in which every row is equally likely;
        with a halflife, rows keep the weight that they have. ``other`` stays as it is. Both must
        have the same options, layers and coordinates; rows that ``other`` still holds back for its
        calibration are streamed here.

        Raises:
            ValueError: the same fitter, or one that differs in any of these; nothing is changed.
        """
        if other is self:
            raise ValueError("a fitter cannot be merged with itself: its rows would count twice.")
        first, second = sorted((self, other), key=id)  # lest two mergers wait for each other
        with turn_of(first), turn_of(second), uninterrupted():
            self._merge_if_alike(other)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        with turn_of(self):
            made = copy.copy(self)
            memo[id(self)] = made
            vars(made).update(copy.deepcopy(vars(self), memo))
        return made

    def _merge_if_alike(self, other: Self) -> None:
        if type(other) is not type(self):
            kinds = type(other).__name__, type(self).__name__
            raise ValueError(f"a {kinds[0]} cannot be merged into a {kinds[1]}.")
        if difference := differing(other._options(), self._options()):
            raise ValueError(
                f"fitters merge if they have the same options; the other one has {difference} in "
                "this one."
            )
        layers, known = other._layers(), self._layers()
        if layers and known and layers != known:
            raise ValueError(
                f"fitters merge if they follow the same layers; the other one follows {layers}, "
                f"this one {known}."
            )
        widths, own = other._features(), self._features()
        if widths and own and widths != own:
            raise ValueError(
                f"fitters merge if their layers have the same widths; the other one's have "
                f"{widths}, this one's {own}."
            )
        if layers:
            self._merge(other)

    def _options(self) -> dict[str, Any]:
        """What the fitter was made with, as plain types."""
        raise NotImplementedError

    def _layers(self) -> tuple[str, ...]:
        """The layers followed; none before the first trajectory."""
        raise NotImplementedError

    def _features(self) -> dict[str, int] | None:
        """Layer → its width; None where it is not known, or known by the digests."""
        return None

    def _state(self) -> dict[str, Any]:
        """What was learnt, as tensors and plain types; tensors may be the fitter's own."""
        raise NotImplementedError

    def _load(self, state: dict[str, Any]) -> None:
        """Take over a state, replacing parts rather than writing into them."""
        raise NotImplementedError

    def _merge(self, other: Self) -> None:
        """Take in the rows of a fitter of the same options and layers."""
        raise NotImplementedError


def live_state(part: Any) -> dict[str, Any]:
    """The state of a fitter, or of anything that has one, for writing: it is not a copy."""
    if not isinstance(part, Resumable):
        state: dict[str, Any] = part.state_dict()
        return state
    state = {"version": VERSION, "fitter": type(part).__name__, "options": part._options()}
    parts = part._state()
    return {**state, "parts": parts, "outline": _outline(parts)}


def _outline(parts: Any) -> str:
    """A digest of the names, types and shapes of tensors, which travel with the numbers."""
    found, pending = hashlib.sha256(), [("", parts)]
    while pending:
        name, part = pending.pop()
        if isinstance(part, Mapping):
            pending += [(f"{name}/{key}", each) for key, each in part.items()]
        elif isinstance(part, list | tuple):
            pending += [(f"{name}/{key}", each) for key, each in enumerate(part)]
        elif isinstance(part, Tensor):
            found.update(f"{name} {part.dtype} {tuple(part.shape)}\n".encode())
    return found.hexdigest()[:16]


def differing(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """The first entry that differs, as ``"rank=5 and rank=-1"``; empty if none does."""
    both = [name for name in theirs if name in mine]
    for name in dict.fromkeys([*both, *theirs, *mine]):  # what only one has tells less
        their, my = theirs.get(name, "unknown"), mine.get(name, "unknown")
        if their != my:
            return f"{name}={their!r} and {name}={my!r}"
    return ""


def same_calibration(mine: Sequence[str], theirs: Sequence[str]) -> None:
    """Refuse to merge what was streamed in other coordinates.

    Args:
        mine: digests of the coordinates and observables; empty if there are none yet.
        theirs: of the fitter that is merged.

    Raises:
        ValueError: they differ.
    """
    if mine != theirs:
        raise ValueError(
            "fitters merge if their rows are in the same coordinates; these differ in their "
            f"calibration (digests {theirs} and {mine}). Call calibrate(sample) of both with the "
            "same sample before streaming; or merge the fitter that is not calibrated into the one "
            "that is."
        )
