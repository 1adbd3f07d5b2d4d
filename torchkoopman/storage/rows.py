"""Rows of tensors in a state, and which of them are new: a few are written again at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


class Rows(list[Tensor]):
    """Tensors of as many rows each, where a state would hold a list of them.

    It is that list, and a deep copy of it is a plain one. Besides it knows when each row was
    written last, so that a log of the rows (see ``logs.py``) takes the new ones alone.

    Args:
        tensors: each ``(rows, …)``; not copies: what they hold changes while their owner goes on.
        written: when each row was written last, ``(rows or more,)``, by a clock that never goes
            back. It is the owner's own: another tensor is of other rows.
        clock: what the time is now.
    """

    def __init__(self, tensors: Sequence[Tensor], written: Tensor, clock: int) -> None:
        super().__init__(tensors)
        self.written = written
        self.clock = clock

    def since(self, clock: int) -> Tensor:
        """The numbers of the rows that were written after this time, ascending."""
        return (self.written[: len(self[0])] > clock).nonzero()[:, 0]

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Tensor]:
        # A copy of a part of a tensor would have all the memory that it lies in.
        return [each.clone() for each in self]


def without_rows(state: Any) -> tuple[Any, list[tuple[list[Any], Rows]]]:
    """A state with None for what are :class:`Rows`, and these with the keys that lead to them."""
    if isinstance(state, Rows):
        return None, [([], state)]
    if type(state) not in (dict, list):
        return state, []
    pairs = state.items() if isinstance(state, dict) else enumerate(state)
    parts, found = {}, []
    for key, each in pairs:
        parts[key], inner = without_rows(each)
        found += [([key, *keys], rows) for keys, rows in inner]
    return (parts if isinstance(state, dict) else list(parts.values())), found


def with_rows(state: Any, keys: Sequence[Any], rows: list[Tensor]) -> None:
    """Put rows where these keys lead to, in place."""
    for key in keys[:-1]:
        state = state[key]
    state[keys[-1]] = rows
