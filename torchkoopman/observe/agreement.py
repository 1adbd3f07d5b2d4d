"""What several processes say of the same thing, which must be the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def agree(
    caller: str, said: Sequence[Mapping[str, Any]], ways_out: Mapping[str, str]
) -> dict[str, Any]:
    """What all processes say alike; what one of them does not know (None) it takes from the others.

    Args:
        caller: as the user calls it.
        said: of each process, subject → statement that can be compared and printed; under
            ``"refusal"`` why it cannot take part.
        ways_out: subject → what to do where processes differ; others are not compared.

    Raises:
        ValueError: processes differ, or one refuses; all of them raise it, in the same words.
    """
    for rank, each in enumerate(said):
        if each["refusal"]:
            raise ValueError(f"{caller} changed nothing: process {rank}: {each['refusal']}")
    agreed: dict[str, Any] = {}
    for subject in [subject for subject in said[0] if subject in ways_out]:
        known = {rank: each[subject] for rank, each in enumerate(said) if each[subject] is not None}
        first = next(iter(known), None)
        agreed[subject] = None if first is None else known[first]
        for rank, statement in known.items():
            if statement != agreed[subject]:
                here, there = _differing(agreed[subject], statement)
                raise ValueError(
                    f"{caller} changed nothing: processes differ in {subject}: process {first} has "
                    f"{here}, process {rank} has {there}. {ways_out[subject]}"
                )
    return agreed


def _differing(one: Any, other: Any) -> tuple[Any, Any]:
    """For mappings, the entries in which they differ; anything else as a whole."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return one, other
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return {name: one.get(name) for name in names}, {name: other.get(name) for name in names}
