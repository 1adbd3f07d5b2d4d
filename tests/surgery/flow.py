"""What flows where in a network wired by chance: which cuts there are, and which are feasible.

The rule, found out from the steps alone and never from the library:

A cut is feasible if the value of ``end`` follows from the state of ``start`` alone, so that nothing
computed before, no buffer and no attribute enters between the two. No inner value, which is one
that a layer between the two computes or that ``end`` is computed from, may be used by anything else
on any branch, be it a layer, a buffer, an attribute or a branch's question; and no layer between
the two may share its buffers with a call outside. Branches between the two may ask for the state of
``start``, but for no inner value.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.surgery.random_networks import Step, Wiring, called_again


@dataclass
class Node:
    """One value: what it is computed from, and by which call of which layer."""

    uses: tuple[int, ...]
    call: int = -1
    layer: str = ""
    asked: int = -1
    """The value that a branch asked for, if this is what the branch gives."""


@dataclass
class Call:
    """One call of a module, in the order in which they end."""

    module: str
    state: int
    """The node of its state."""
    arm: int = -1
    """The step whose condition it is under."""


@dataclass
class Flow:
    """All values of a network, followed through its steps."""

    wiring: Wiring
    nodes: list[Node] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    """Storage → the node that is in it now."""
    arm: int = -1

    def __post_init__(self) -> None:
        self.sources = {name: self._node() for name in ("x", "mean", "remembered")}
        self.mean, self.kept, values = self.sources["mean"], -1, list[int]()
        x = self._store(self.sources["x"])
        for index, step in enumerate(self.wiring.steps):
            left = values[step.left % len(values)] if values else x
            right = values[step.right % len(values)] if values else x
            asked = [*values, x][step.asked % (len(values) + 1)]
            values.append(self._step(index, step, left, right, self.stored[asked]))
        last = values[self.wiring.last % len(values)]
        self._node(self.stored[values[-1]], self.stored[last])

    def cuts(self) -> list[tuple[str, str]]:
        """Ends of spans: the first's state is there whenever the last one's is."""
        names = self._names()
        return [
            (names[i], names[j])
            for j, end in enumerate(self.calls)
            for i, start in enumerate(self.calls[:j])
            if start.arm in (-1, end.arm) and start.module != end.module
        ]

    def feasible(self, start: str, end: str) -> bool:
        """Whether a cut is feasible, by the rule above."""
        names = self._names()
        first, last = (self.calls[names.index(name)].state for name in (start, end))
        inner, pending = set[int](), [last]
        while pending:
            node = pending.pop()
            if node != first and node not in inner:
                inner.add(node)
                pending += self.nodes[node].uses
        used = {use for node in inner for use in self.nodes[node].uses}
        if first not in used or any(not self.nodes[node].uses for node in inner):
            return False
        ends = {self.nodes[node].call for node in (first, last)}
        whole = {self.nodes[node].call for node in inner} - ends - {-1}
        mine = (self.nodes[last].call, self.nodes[last].layer)
        for index, node in enumerate(self.nodes):  # the other tensors of these calls
            if node.call in whole or (node.call, node.layer) == mine:
                inner.add(index)
        if any(self.nodes[node].asked in inner for node in inner):
            return False
        for index, node in enumerate(self.nodes):
            if index not in inner and any(use in inner - {last} for use in node.uses):
                return False
        return not self._shared(inner)

    def _shared(self, inner: set[int]) -> bool:
        """Whether a layer with buffers is called both in the span and outside."""
        steps = self.wiring.steps
        stateful = {f"layers.{i}" for i, s in enumerate(steps) if s.layer in ("counter", "average")}
        inside = {self.nodes[i].layer for i in inner} & stateful
        outside = {node.layer for i, node in enumerate(self.nodes) if i not in inner}
        return bool(inside & outside)

    def _names(self) -> list[str]:
        """The name of each call, with its number where the module is called more often."""
        order = [call.module for call in self.calls]
        return [
            name + (f"#{order[:place].count(name)}" if order.count(name) > 1 else "")
            for place, name in enumerate(order)
        ]

    def _node(self, *uses: int, layer: str = "", call: int = -1, asked: int = -1) -> int:
        self.nodes.append(Node(uses, call, layer, asked))
        return len(self.nodes) - 1

    def _store(self, node: int) -> int:
        self.stored.append(node)
        return len(self.stored) - 1

    def _step(self, index: int, step: Step, left: int, right: int, asked: int) -> int:
        if step.kind == "alias":
            return left
        called = called_again(self.wiring.steps, index)
        if step.kind in ("choose", "skip"):
            self.arm = index
            one = self._call(called, self.stored[left])
            self.arm = -1
            other = self.stored[left]
            if step.kind == "choose":
                other = self._node(other)
            return self._store(self._node(one, other, asked, asked=asked))
        if step.kind == "extra":
            given = self._node(self.stored[left], self.stored[right], asked, asked=asked)
        else:
            given = self._changed(step.kind, left, right)
        return self._store(self._call(called, given))

    def _changed(self, kind: str, left: int, right: int) -> int:
        """What a step gives to its layer, as in ``Network._changed``."""
        mine, other = self.stored[left], self.stored[right]
        if kind in ("write", "augment", "view"):
            self.stored[left] = self._node(mine, *([other] if kind == "augment" else []))
            return self.stored[left]
        if kind == "sum":
            return self._node(mine, other)
        if kind == "average":
            self.mean = self._node(self.mean, other)
        elif kind == "read":
            return self._node(mine, self.mean)
        elif kind == "keep":
            self.kept = right
            self._node(other)
        elif kind == "kept" and self.kept >= 0:
            return self._node(mine, self.stored[self.kept])
        elif kind == "remember":
            self._node(other)
        elif kind == "recall":
            return self._node(mine, self.sources["remembered"])
        return mine

    def _call(self, index: int, given: int) -> int:
        """One call of a layer, and the node of what the network uses of its output."""
        step, name, call = self.wiring.steps[index], f"layers.{index}", len(self.calls)
        entering = [given, *([self._node()] if step.layer == "average" else [])]
        if step.layer == "nested":
            for part in range(2):
                entering = [self._node(*entering, layer=f"{name}.{part}", call=call)]
                self._ended(f"{name}.{part}", entering[0])
        state = self._node(*entering, layer=name, call=call)
        if step.layer == "nested" and step.hook != "scale":  # it returns what its last part returns
            self.nodes.pop()
            state = entering[0]
        if step.layer != "dict":  # no rule says which entry of a mapping is the state
            self._ended(name, state)
        if step.layer in ("tuple", "dict") and step.reads != "first":
            second = self._node(*entering, layer=name, call=call)
            state = second if step.reads == "second" else self._node(state, second)
        return self._node(state) if step.context == "autocast" else state  # in float32 again

    def _ended(self, module: str, state: int) -> None:
        self.calls.append(Call(module, state, self.arm))
