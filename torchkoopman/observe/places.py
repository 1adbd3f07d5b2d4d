"""Places: where a value is in whatever a layer returns, and the same structure around another.

Layers return tensors, tuples, lists, dataclasses or mappings of them (``ModelOutput`` is both).

PyTorch's own walker, ``torch.utils._pytree``, serves where arguments and tensors are all that
counts. Here it would not do. What it was not told of is a leaf to it: dataclasses, mappings such as
a tokenizer's, subclasses of dict and list; and telling it is for good and for the whole process,
the user's exports included. It opens a PackedSequence. And it has one key for an entry that a
program may name in several ways, all of which a replacement must find.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.nn.utils.rnn import PackedSequence

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Step:
    """One step into a container."""

    key: int | str
    """Index, key or field."""
    field: bool = False
    """Whether it is read as an attribute rather than as an item."""
    spellings: frozenset[tuple[bool, int | str]] = frozenset()
    """All ``(field, key)`` that lead to the same place."""


Place = tuple[Step, ...]
"""The way from an output to one value in it; empty for the output itself."""


def spelled(place: Place) -> str:
    """A place as it is written: ``"0.hidden"``; empty for the output itself."""
    return ".".join(str(step.key) for step in place)


def leaves(value: object, place: Place = ()) -> Iterator[tuple[Place, object]]:
    """Everything that is no container, with its place, in order.

    A PackedSequence is a leaf, though it is a tuple too: its parts are no rows of a batch.
    """
    steps = _steps(value)
    if not steps:
        yield place, value
    for step in steps:
        yield from leaves(_into(value, step), (*place, step))


def read(output: Any, place: Place) -> Any:
    """The value at a place."""
    for step in place:
        output = _into(output, step)
    return output


def kinds(output: object, place: Place) -> tuple[str, ...]:
    """Names of the types of the containers on the way to a place; as far as the way goes."""
    names: list[str] = []
    for step in place:
        if step not in _steps(output):
            break
        names.append(type(output).__name__)
        output = _into(output, step)
    return tuple(names)


def filled(template: Any, place: Place, value: Any) -> Any:
    """A copy of ``template`` with ``value`` at a place; everything else is shared."""
    if not place:
        return value
    step, *rest = place
    inner = filled(_into(template, step), tuple(rest), value)
    if isinstance(template, tuple | list):
        items = [inner if index == step.key else item for index, item in enumerate(template)]
        named = hasattr(template, "_fields")
        return type(template)(*items) if named else type(template)(items)
    result = copy.copy(template)
    if step.field:
        object.__setattr__(result, str(step.key), inner)  # also where the dataclass is frozen
    else:
        result[step.key] = inner
    return result


def _steps(value: object) -> list[Step]:
    """All steps into a container; none into anything else."""
    if isinstance(value, PackedSequence):
        return []
    keys: list[Any] = _fields(value)
    field = not isinstance(value, Mapping | tuple | list)
    if isinstance(value, Mapping):
        keys = list(value)
    elif isinstance(value, tuple | list):
        keys = list(range(len(value)))
    return [Step(key, field, _spellings(value, index, key)) for index, key in enumerate(keys)]


def _spellings(value: object, index: int, key: int | str) -> frozenset[tuple[bool, int | str]]:
    """How a program may name one entry: a ModelOutput's by key, by field, or by index."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return frozenset({(False, index), (True, str(value._fields[index]))})
    fields = _fields(value)
    if isinstance(value, Mapping) and key in fields:
        return frozenset({(False, key), (True, key), (False, index)})
    return frozenset({(key in fields, key)})


def _fields(value: Any) -> list[str]:
    """The fields of a dataclass's instance; none of anything else."""
    instance = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return [entry.name for entry in dataclasses.fields(value)] if instance else []


def _into(value: Any, step: Step) -> Any:
    return getattr(value, str(step.key)) if step.field else value[step.key]
