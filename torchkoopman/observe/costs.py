"""Costs: the operations and parameters that run between two layers' outputs.

Operations are those of ``torch.utils.flop_counter``: matrix products, convolutions and attention,
two for each multiply-add. Elementwise functions, normalisations, softmax, pooling and look-ups
count as none; neither do fused recurrent kernels (``nn.LSTM`` on a CPU), for which it has no
formula.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from torchkoopman.observe.interrupts import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from torchkoopman.observe.trajectory import Trajectory

    Shape = tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """What a part of a network costs."""

    operations: float
    """Floating-point operations of one sample, two for each multiply-add."""
    parameters: int
    """Elements of parameters and buffers, each tensor counted once."""


@dataclass(frozen=True)
class NetworkCosts:
    """What one forward pass ran, and when; ask it :meth:`between` two layers."""

    network: Cost
    """The whole forward pass, and everything the model stores."""
    states: Mapping[str, tuple[int, ...]]
    """Layer → shape of its state, ``(batch, positions, features)``."""
    outputs: Mapping[str, tuple[int, float]]
    """Layer → the moment its output appeared, and the operations per sample until then."""
    uses: tuple[tuple[int, int, int], ...]
    """For each parameter and buffer: its elements, the moment before its first use, and the moment
    after its last."""

    def between(self, start: str, end: str) -> Cost:
        """What runs after ``start`` has given its output and until ``end`` has given its own.

        A parameter counts if it is used there and nowhere else: one shared with a module outside is
        not saved by replacing the span. One that a module around ``start`` or ``end`` holds itself
        is taken for used outside too.
        """
        (after, before), (until, total) = self.outputs[start], self.outputs[end]
        held = sum(size for size, first, last in self.uses if after < first and last <= until)
        return Cost(total - before, held)


class CostMeter:
    """Counts one forward pass of a model, within a ``with`` and as a listener of a probe.

    The first trajectory that reaches it ends the count; ``costs`` is None until then. Hooks come
    off at the end of the ``with``.
    """

    def __init__(self, model: nn.Module) -> None:
        self.costs: NetworkCosts | None = None
        self._model = model
        self._counter = _counter()
        self._stack = ExitStack()
        self._now = 0
        self._entered: dict[nn.Module, list[int]] = defaultdict(list)
        self._calls: dict[nn.Module, list[tuple[int, int, int]]] = defaultdict(list)

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            with uninterrupted():
                for module in self._model.modules():
                    opened.callback(module.register_forward_pre_hook(self._enter).remove)
                    opened.callback(module.register_forward_hook(self._leave).remove)
                opened.enter_context(unfused())
                opened.enter_context(self._counter)
            self._stack = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def update(self, trajectory: Trajectory) -> None:
        """The forward pass is over: its layers are those of the trajectory."""
        if self.costs is not None:
            return
        total = self._counter.get_total_flops()
        for module, opened in self._entered.items():  # the probe may be told of the end before us
            self._calls[module] += [(moment, self._now + 1, total) for moment in opened]
        outputs = {}
        for stream in trajectory.layers:
            name, _, call = stream.partition("#")
            _, moment, operations = self._calls[self._model.get_submodule(name)][int(call or 0)]
            outputs[stream] = moment, operations / trajectory.batch
        whole = Cost(total / trajectory.batch, numbers(self._model))
        states = {layer: tuple(state.shape) for layer, state in trajectory.states.items()}
        self.costs = NetworkCosts(whole, states, outputs, tuple(self._uses()))

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._now += 1
        self._entered[module].append(self._now)

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        self._now += 1
        call = self._entered[module].pop(), self._now, self._counter.get_total_flops()
        self._calls[module].append(call)

    def _uses(self) -> Iterator[tuple[int, int, int]]:
        """Elements, first and last moment of each tensor that a module which ran holds."""
        moments: dict[Tensor, list[int]] = defaultdict(list)
        for tensor, owner in self._owned(self._model, None):
            calls = [] if owner is None else self._calls[owner]
            moments[tensor] += [moment for call in calls for moment in call[:2]]
        for tensor, known in moments.items():
            if known:
                yield tensor.numel(), min(known), max(known)

    def _owned(
        self, module: nn.Module, owner: nn.Module | None
    ) -> Iterator[tuple[Tensor, nn.Module | None]]:
        """Each tensor with the module that uses it, None for a model that never ran.

        A module that is never called itself serves the one around it, as the output projection of
        ``nn.MultiheadAttention`` does.
        """
        owner = module if self._calls.get(module) else owner
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            yield tensor, owner
        for child in module.children():
            yield from self._owned(child, owner)


@torch.no_grad()
def cost_of(module: nn.Module, *inputs: Tensor) -> Cost:
    """The cost of a module called on ``inputs``, whose first axis is the batch."""
    with unfused(), _counter() as counter:
        module(*inputs)
    return Cost(counter.get_total_flops() / len(inputs[0]), numbers(module))


def numbers(module: nn.Module) -> int:
    """Elements of a module's parameters and buffers, each tensor counted once."""
    return sum(tensor.numel() for tensor in {*module.parameters(), *module.buffers()})


def short(number: float) -> str:
    """A number as people read it: ``1.2M``, ``34.5k``, ``12``."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return f"{number:.0f}"


@contextmanager
def unfused() -> Iterator[None]:
    """Within it ``nn.TransformerEncoderLayer`` runs operation by operation, as under a trace."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _counter() -> FlopCounterMode:
    """A counter that also knows attention on a CPU, which torch 2.13 counts as nothing."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={fused: _attention})
    counter.mod_tracker = _Whole()  # type: ignore[assignment]
    return counter


class _Whole:
    """All operations are those of the whole, in the place of torch's tracker of modules.

    That one asks arguments of modules for gradients, which fails for views of parameters where none
    are taken, as in DeBERTa.
    """

    parents = ("Global",)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *args: object) -> None:
        pass


def _attention(query: Shape, key: Shape, value: Shape, *rest: object, **options: object) -> int:
    """The two matrix products of attention, from shapes ``(batch, heads, positions, features)``."""
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
