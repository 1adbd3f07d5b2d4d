"""Schemas: what torch's operators declare that they do to the memory of their arguments."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch._ops import OpOverloadPacket

if TYPE_CHECKING:
    from torch._ops import OpOverload

Places = frozenset[int | str]
"""Arguments of a call, by position or keyword; :data:`ALL` for all of them."""
ALL = "*"


@dataclass(frozen=True)
class Effect:
    """What one call does to the memory of its arguments."""

    writes: Places = frozenset()
    shares: Places = frozenset()
    known: bool = True
    """False when the code could not be looked into: it may share all of its arguments."""


FIRST: Places = frozenset({0, "self", "input"})
WRITES_FIRST = Effect(FIRST, FIRST)
SHARES_FIRST = Effect(shares=FIRST)
OPAQUE = Effect(known=False)
WRITES_ALL = Effect(writes=frozenset({ALL}), known=False)
"""Code that could not be looked into, but in whose text there are writes in place."""


@functools.cache
def torch_effect(name: str) -> Effect | None:
    """The effect that the operator schemas of a name declare, over all overloads."""
    packet = getattr(torch.ops.aten, name, None)
    if not isinstance(packet, OpOverloadPacket):  # also what every namespace has, __init__ say
        return WRITES_FIRST if name.endswith("_") and not name.endswith("__") else None
    overloads = packet.overloads()  # type: ignore[no-untyped-call]
    effects = [schema_effect(getattr(packet, overload)) for overload in overloads]
    return Effect(
        frozenset().union(*(effect.writes for effect in effects)),
        frozenset().union(*(effect.shares for effect in effects)),
    )


@functools.cache
def schema_effect(operator: OpOverload) -> Effect:
    """The effect that one operator's schema declares."""
    if "dropout" in operator._schema.name:  # returns its input in eval mode
        return SHARES_FIRST
    writes: set[int | str] = set()
    shares: set[int | str] = set()
    for place, argument in enumerate(operator._schema.arguments):
        if argument.alias_info is not None:
            name = str(argument.name)
            places: set[int | str] = {name} if argument.kwarg_only else {place, name}
            shares |= places
            if argument.alias_info.is_write:
                writes |= places
    return Effect(frozenset(writes), frozenset(shares))
