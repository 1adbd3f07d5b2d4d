"""Pairing: the events of hooks, paired into one trajectory for each forward pass."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from torchkoopman.observe.alone import current_run
from torchkoopman.observe.capture import Reader, Reading, is_recomputing, is_tracing
from torchkoopman.observe.causes import warn_of_compiling, warn_of_replaced
from torchkoopman.observe.delivery import Delivery, looks_along
from torchkoopman.observe.hooks import read_last
from torchkoopman.observe.ledger import Ledger
from torchkoopman.observe.parallel import Parallel
from torchkoopman.observe.passes import Forward, Passes, input_specs
from torchkoopman.observe.selection import common_ancestors, device_of
from torchkoopman.observe.shards import Flow
from torchkoopman.observe.unseen import refuse_replica, replaced

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from torchkoopman.observe.report import ProbeReport
    from torchkoopman.observe.selection import Selected


class Pairing:
    """Is told when modules around the layers are entered and left, and what a layer returned.

    Children called without the model still pair: a forward pass begins and ends with the outermost
    call of any module around all layers. If such a module calls itself, or one further out, each of
    the calls is a forward pass of its own.

    Threads may run the model at the same time. Their passes are kept apart; one lock is held while
    anything is counted, and while listeners run.
    """

    def __init__(self, model: nn.Module, selected: Iterable[Selected], reader: Reader) -> None:
        self._model = weakref.ref(model)
        self.selected = {each.name: each for each in selected}
        self._layers = {name: each.module for name, each in self.selected.items()}
        required = [mark for each in self.selected.values() for mark in each.required]
        self.ledger = Ledger(required, device_of(self.selected.values()))
        self._delivery = Delivery(self.ledger, reader.when)
        self.listeners = self._delivery.listeners
        self.with_pass = self._delivery.with_pass
        self._run = current_run()
        """The pairing reads the passes of the run that it was made in, and no others."""
        self._reader = reader
        self._depths = {name: k for k, name in enumerate(common_ancestors(self.selected))}
        self._passes = Passes()
        self.parallel = Parallel(self._passes)
        self._lock = threading.RLock()  # a listener may run the model

    def clear(self) -> None:
        """Forget the forward passes under way."""
        with self._lock:
            self.ledger.interrupted += self._passes.settle_all()
            self._passes.clear()

    def report(self, lost_hooks: tuple[str, ...]) -> ProbeReport:
        """The counts as they stand."""
        with self._lock:
            self.ledger.interrupted += self._passes.settle_all()
            return self.ledger.report(lost_hooks)

    def compiled(self, name: str) -> None:
        """A module is being compiled with a hook of this probe on it."""
        with self._lock:
            first = not self.ledger.compiled
            self.ledger.compiled[name] = None
        if first:
            warn_of_compiling(name)

    def enter(
        self,
        name: str,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        """A module around all layers is about to run.

        torch gives no ``kwargs`` while the hook is put on or taken off: such a call is not seen.
        """
        if kwargs is None or is_recomputing():
            return
        refuse_replica(module)
        depth = self._depths[name]
        with self._lock:
            self.ledger.interrupted += self._passes.settle(entering=module)
            forward = self._passes.current()
            begins = forward is None or depth <= forward.around[-1][0]
            if forward is None or begins:
                forward = Forward(
                    self._reader.sample(not any(map(looks_along, self.listeners))),
                    () if name else input_specs(args, kwargs),
                    "train" if module.training else "eval",
                    self._why_not(module),
                )
                self.parallel.search(name, module)
                self._look_for_replaced()
                read_last(self._layers.values(), self)
                forward.flow = Flow(self.parallel.modules, self.parallel.followed)
            if self._reader.masks and forward.skip is None:
                forward.mask.offer(module, args, kwargs)
            forward.around.append((depth, module))  # after what may raise or be interrupted
            if begins:
                self._passes.begin(forward)
                self.ledger.forwards += 1
                self.with_pass.begun += 1

    def _why_not(self, module: nn.Module) -> str | None:
        """Why a forward pass of a module that begins shall not be read, if so."""
        if is_tracing():
            return "traced"
        if current_run() is not self._run:
            return "other"
        return self._reader.passes_over(module)

    def _look_for_replaced(self) -> None:
        """Say so once of a layer whose name no longer means the module with the hooks on it."""
        model = self._model()
        for name, module in () if model is None else replaced(model, self._layers):
            if name not in self.ledger.replaced:
                self.ledger.replaced[name] = None
                warn_of_replaced(name, module, self.selected[name].module)

    def leave(self, name: str, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """A module returned; if it was the outermost, the forward pass is over."""
        if is_recomputing():
            return
        with self._lock:
            self.ledger.interrupted += self._passes.settle()
            left = self._passes.leave(self._depths[name])
            if left is not None and left[1]:
                passed_on = self.ledger.trajectories
                try:
                    self._finish(left[0])
                except BaseException:
                    self.ledger.interrupted += self.ledger.trajectories == passed_on
                    raise

    def abort(self, name: str, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """A module returned or raised; if it is still known to run, it raised."""
        if is_recomputing():
            return
        with self._lock:
            self.ledger.interrupted += self._passes.settle()
            depth = self._depths[name]
            left = self._passes.leave(depth) if self._passes.knows(depth, module) else None
            if left is not None:
                left[0].broken = True
                self.ledger.interrupted += left[1]

    def read(self, name: str, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """A layer returned ``output``: copy its state, unless this is no time to do so."""
        with self._lock:
            if is_recomputing():
                self.ledger.skipped["recompute"] += 1
                return
            refuse_replica(module)
            self.ledger.interrupted += self._passes.settle()
            forward = self._passes.current()
            call = 0 if forward is None else forward.calls[name]
            stream = f"{name}#{call}"
            self.ledger.fired.update((name, stream))
            if forward is None:
                self.ledger.skipped["traced" if is_tracing() else "outside"] += 1
                return
        forward.calls[name] += 1
        chosen = self.selected[name].calls
        if chosen is not None and call not in chosen:
            return
        reading = forward.skip or self._reader.read(
            name, stream, module, args, output, forward.sample, forward.flow
        )
        with self._lock:
            if isinstance(reading, Reading):
                forward.readings[name, call] = reading
                self.ledger.reads[stream] += 1
            else:
                forward.skipped = True
                self.ledger.skipped[reading] += 1

    def _finish(self, forward: Forward) -> None:
        """Emit a complete forward pass; count or refuse another."""
        if forward.flow.refused and self.parallel.hooks is not None:
            self.parallel.hooks.remove()
            raise ValueError(forward.flow.refusal(self._reader.gather))
        if forward.skip is not None or forward.skipped:
            return
        if forward.broken:
            self.ledger.unpaired += 1
            return
        ran = set(forward.calls) | {f"{name}#{call}" for name, call in forward.readings}
        missing = [mark for mark in self.ledger.required if mark not in ran]
        never = [mark for mark in missing if mark not in self.ledger.fired]
        if missing and self.ledger.compiled:
            self.ledger.skipped["compiled"] += len(missing)
            return
        if never:
            raise RuntimeError(
                f"the chosen layers {', '.join(map(repr, never))} did not run in a forward pass "
                "that ended normally, so there is no state to pair with the others. They may be "
                "unused, called as layer.forward(x) or through torch.nn.functional (which call no "
                "hooks), compiled, or called less often than their '#k' says. Choose layers "
                "that run."
            )
        streams = self._streams(forward)
        order = tuple(self.ledger.streams) or tuple(streams)
        if missing or set(streams) != set(order):
            self.ledger.unpaired += 1
            return
        self._delivery({stream: streams[stream] for stream in order}, forward)

    def _streams(self, forward: Forward) -> dict[str, Reading]:
        """Readings by name in order of execution, with ``#k`` where a layer ran several times."""
        return {
            name
            if self.selected[name].calls is None and forward.calls[name] == 1
            else f"{name}#{call}": reading
            for (name, call), reading in forward.readings.items()
        }
