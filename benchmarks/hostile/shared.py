"""Hostile: layers and hooks that talk to one another past the arguments."""

from __future__ import annotations

import contextvars
import functools
import threading
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from benchmarks.hostile.case import WIDTH, Six, case

CAUSE = "values pass beside the graph"
STORE: dict[str, Tensor] = {}
"""A module-level dict, as in notebooks."""
CONTEXT: contextvars.ContextVar[Tensor] = contextvars.ContextVar("CONTEXT")
LOCAL = threading.local()


class HooksThroughDict(Six):
    """A hook behind the span adds what a hook in the span kept: activation patching."""

    source = 2

    def build(self) -> None:
        kept: dict[str, Tensor] = {}
        add = not self.harmless
        self.b[self.source].register_forward_hook(
            lambda _, given, out: kept.__setitem__("h", out.detach())
        )
        self.b[4].register_forward_hook(lambda _, given, out: out + kept["h"] if add else None)


class HooksFromStart(HooksThroughDict):
    """The same from the first layer of the span, whose output is kept before it is replaced."""

    source = 1


class HooksFromEnd(HooksThroughDict):
    """The same from the last layer of the span: the hook saw what the layer itself returned."""

    source = 3


class HooksThroughList(Six):
    """As with the dict, with a stack that is pushed to and popped from."""

    def build(self) -> None:
        stack: list[Tensor] = []
        add = not self.harmless
        self.b[2].register_forward_hook(lambda _, given, out: stack.append(out))
        self.b[5].register_forward_hook(
            lambda _, given, out: out + stack.pop() if add else stack.clear()
        )


class PreHookReadsAttribute(Six):
    """A pre-hook behind the span reads what a hook in the span set on the layer."""

    def build(self) -> None:
        inner, add = self.b[2], not self.harmless
        inner.register_forward_hook(lambda layer, given, out: setattr(layer, "last", out.detach()))
        self.b[4].register_forward_pre_hook(
            lambda _, given: (given[0] * inner.last,) if add else None
        )


class Keeping(nn.Linear):
    """A layer that keeps what it returned."""

    def forward(self, h: Tensor) -> Tensor:
        self.last = super().forward(h)
        return self.last


class Reading(nn.Linear):
    """A layer that adds what another kept."""

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h) + (self.other[0].last if self.adds else 0)


class KeptOnLayer(Six):
    """A layer behind the span reads the last output of one in the span."""

    source = 2

    def build(self) -> None:
        self.b[self.source], self.b[4] = Keeping(WIDTH, WIDTH), Reading(WIDTH, WIDTH)
        self.b[4].other, self.b[4].adds = [self.b[self.source]], not self.harmless


class KeptBeforeSpan(KeptOnLayer):
    """A layer behind the span reads the last output of one before it; nothing is replaced there."""

    source = 0


class KeptOnSelf(Six):
    """The model keeps a value of the span and uses it behind."""

    def inside(self, h: Tensor) -> Tensor:
        self.kept = h
        return h

    def behind(self, h: Tensor) -> Tensor:
        kept = self.kept
        self.kept = None
        return h if self.harmless else h + kept


class KeptOnClass(Six):
    """As before, on the class."""

    kept: ClassVar[Any] = None

    def inside(self, h: Tensor) -> Tensor:
        KeptOnClass.kept = None if self.harmless else h
        return h

    def behind(self, h: Tensor) -> Tensor:
        return h if KeptOnClass.kept is None else h + KeptOnClass.kept


class KeptInModule(Six):
    """As before, in a dict of the file."""

    def build(self) -> None:
        STORE.clear()

    def inside(self, h: Tensor) -> Tensor:
        if not self.harmless:
            STORE["h"] = h
        return h

    def behind(self, h: Tensor) -> Tensor:
        return h + STORE["h"] if STORE else h


class LeafInModule(nn.Linear):
    """A layer that writes to the dict of the file."""

    def forward(self, h: Tensor) -> Tensor:
        STORE["leaf"] = super().forward(h)
        return STORE["leaf"]


class LeafReadsModule(nn.Linear):
    """A layer that reads from it, and takes the value away."""

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h) + STORE.pop("leaf")


class LayersThroughModule(Six):
    """Two layers share a dict of the file."""

    def build(self) -> None:
        STORE.clear()
        self.b[2] = LeafInModule(WIDTH, WIDTH)
        self.b[5] = nn.Linear(WIDTH, WIDTH) if self.harmless else LeafReadsModule(WIDTH, WIDTH)


class ThroughContext(Six):
    """A context variable carries a value out of the span."""

    def inside(self, h: Tensor) -> Tensor:
        CONTEXT.set(torch.ones(WIDTH) if self.harmless else h)
        return h

    def behind(self, h: Tensor) -> Tensor:
        return h + CONTEXT.get()


class ThroughThreadLocal(Six):
    """A thread-local object does."""

    def inside(self, h: Tensor) -> Tensor:
        LOCAL.h = torch.ones(WIDTH) if self.harmless else h
        return h

    def behind(self, h: Tensor) -> Tensor:
        return h + LOCAL.h


@functools.lru_cache(maxsize=1)
def slot(key: str) -> list[Tensor]:
    """The same list for a key each time."""
    return [torch.zeros(WIDTH)]


class ThroughCache(Six):
    """A cached function hands out a list that the span writes to."""

    def build(self) -> None:
        slot.cache_clear()

    def inside(self, h: Tensor) -> Tensor:
        if not self.harmless:
            slot("kept")[0] = h
        return h

    def behind(self, h: Tensor) -> Tensor:
        return h + slot("kept")[0]


KINDS = (
    HooksThroughDict,
    HooksFromStart,
    HooksFromEnd,
    HooksThroughList,
    PreHookReadsAttribute,
    KeptOnLayer,
    KeptBeforeSpan,
    KeptOnSelf,
    KeptOnClass,
    LayersThroughModule,
    ThroughContext,
    ThroughThreadLocal,
    ThroughCache,
)
CASES = [case(CAUSE, kind) for kind in KINDS]
CASES.append(case(CAUSE, KeptInModule, shared=STORE))
