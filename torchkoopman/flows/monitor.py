"""A monitor of a training that looks, now and then, where the model's flow comes to rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from torchkoopman.fitting.monitor_arguments import Record
from torchkoopman.flows.flow import Flow
from torchkoopman.flows.looks import FlowLook, look_at
from torchkoopman.flows.monitor_starts import require_settings, require_whole, states_of
from torchkoopman.flows.monitor_state import SavedFlowMonitor
from torchkoopman.flows.untouched import untouched
from torchkoopman.observe.warned import warn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from torchkoopman.flows.monitor_starts import Starts


class FlowMonitor(SavedFlowMonitor):
    """Follows the attractors of a model's flow while the model trains.

    At step 0 and after every ``log_every`` optimiser steps, and whenever :meth:`look` is called, it
    finds the points that attract from each set of starts, and what became of those of the look
    before (:class:`FlowLook`). For a look the model is in evaluation mode, its random numbers are
    the same each time, and it is given back as it was: modes, buffers, gradients, hooks and
    generators.

    Wrong flows, starts or folders raise an error in :meth:`attach`; later errors, as of a training
    that diverges, become warnings. Of many processes one should use it.

    Example:
        >>> encode, decode = torch.nn.Linear(4, 2), torch.nn.Linear(2, 4)
        >>> model = torch.nn.ModuleDict({"encode": encode, "decode": decode})
        >>> monitor = tk.flows.FlowMonitor(
        ...     lambda m: tk.flows.Flow.of_autoencoder(m["encode"], m["decode"]),
        ...     {"train": lambda m: m["encode"](train.inputs[:100]), "noise": torch.randn(50, 2)},
        ...     log_every=10,
        ... )
        >>> with monitor.attach(model.train()):
        ...     for _ in range(20):
        ...         loss = decode(encode(train.inputs[:500])).mean()  # then loss.backward()
        ...         monitor.step()  # after optimizer.step()
        >>> monitor.history.steps.tolist(), monitor.latest.names
        ([0, 10, 20], ('train', 'noise'))

    Args:
        flow: from the model to its :class:`Flow`, made of parts of the model.
        starts: name → latent states ``(n, …)``, or a function from the model to these, such as
            encoding training samples, which moves with the encoder.
        log: called as ``log(look, step)``; its ``open(step)`` and ``close()``, if it has both, are
            called with the training. ``torchkoopman_tensorboard.EventFolder("runs/…")`` writes
            event files.
        log_every: optimiser steps from one look to the next.
        steps: applications of the flow at most, see :meth:`Flow.fixed_points`.
        **options: ``tolerance``, ``merge`` and ``far`` of :meth:`Flow.fixed_points`.

    Raises:
        ValueError: no starts, or a number of steps below 1.
        TypeError: what is no function of the model, or an unknown option.
    """

    def __init__(
        self,
        flow: Callable[[Any], Flow],
        starts: Mapping[str, Starts],
        log: Callable[[FlowLook, int], object] | None = None,
        *,
        log_every: int = 200,
        steps: int = 1000,
        **options: Any,
    ) -> None:
        require_settings(flow, starts, options, log_every=log_every, steps=steps)
        self.flow, self.starts = flow, dict(starts)
        self.log = log
        self.log_every, self.steps, self.options = log_every, steps, options
        self._model = None
        self._begin()

    def check(self, model: nn.Module) -> tuple[str, ...]:
        """The names of the starts, if a look can be taken from them.

        Raises:
            TypeError: the function gives no :class:`Flow`, and see there.
            ValueError: see :class:`Flow`; a module beside the model that is in training mode;
                weights in parts, on several processes; or a state of other starts was loaded.
        """
        require_whole(model)
        self._require_same()
        with untouched(model):
            flow, starts = self._made(model)
            for each in starts.values():
                with flow.running(each):
                    pass
        return tuple(self.starts)

    def attach(self, model: nn.Module, step: int | None = None) -> Self:
        """Look at this model from now on, in place of any other.

        Args:
            model: that is trained, or a part of it.
            step: optimiser steps that the training has done. None: as many as the monitor has
                seen, or its loaded state says; 0 begins anew. Before the first step it looks.

        Raises:
            ValueError: see :meth:`check`; or a state of another step was loaded.
            OSError: ``log`` cannot write where it should.
        """
        self.close(quiet=True)
        if step == 0 and (self._done or len(self.history.steps)):
            self.reset()
        self.check(model)
        if step is not None and step != self._done:
            if self._done or len(self.history.steps):
                raise ValueError(
                    f"the training continues after step {step}, but the state of the FlowMonitor "
                    f"is of step {self._done}. Load the state that was saved with the training's, "
                    "or give step=0 to start over."
                )
            warn(
                f"the training continues after step {step}, but no state of a FlowMonitor was "
                "loaded: its curves begin here."
            )
            self._done = step
        if isinstance(self.log, Record):
            self.log.open(self._done)
        self._model, self._hindrance = model, ""
        if self._done == 0 and not len(self.history.steps):
            try:
                self.look()
            except BaseException:  # else the log stays open, and no one else writes there
                self.close(quiet=True)
                self._begin()
                raise
        return self

    def close(self, *, quiet: bool = False) -> None:
        """Let the model go and close the log.

        Args:
            quiet: of all monitors; this one never warns here.
        """
        model, self._model = self._model, None
        if model is not None and isinstance(self.log, Record):
            self.log.close()

    def step(self, step: int | None = None) -> None:
        """Count a step; call it after every ``optimizer.step()``.

        Args:
            step: steps done by now; None for one more. The same number again, as while gradients
                are accumulated, does nothing.

        Raises:
            RuntimeError: the monitor is not attached.
            ValueError: fewer steps than before.
        """
        before = self._count(step)
        if self._done // self.log_every > before // self.log_every:
            try:
                self.look()
            except (ValueError, TypeError, RuntimeError, OSError) as error:
                if not self._hindrance:
                    warn(f"no look at the flow at step {self._done}, nor perhaps later: {error}")
                self._hindrance = self._hindrance or str(error)

    def look(self) -> FlowLook:
        """Look now, whatever the step, and log it.

        Raises:
            RuntimeError: the monitor is not attached.
            ValueError: it has looked at this step already; or see :meth:`check`.
            OSError: ``log`` cannot write.
        """
        self._require_attached()
        assert self._model is not None
        before = self._latest
        if before is not None and before.step == self._done:
            raise ValueError(
                f"the monitor has looked at step {self._done} already: monitor.latest. Count steps "
                "by monitor.step() after optimizer.step()."
            )
        with untouched(self._model):
            flow, starts = self._made(self._model)
            found = look_at(flow, starts, self._done, before, self.steps, self.options)
        self._latest = found
        self._history = self.history.after(found)
        if self.log is not None:
            self.log(found, self._done)
        return found

    def _made(self, model: nn.Module) -> tuple[Flow, dict[str, Tensor]]:
        """The flow, and the starts on the model's device; the model is in evaluation mode."""
        flow = self.flow(model)
        if not isinstance(flow, Flow):
            raise TypeError(
                f"FlowMonitor's function of the model gives a {type(flow).__name__}; give one that "
                "returns a tk.flows.Flow, such as tk.flows.Flow itself, or lambda model: "
                "tk.flows.Flow.of_autoencoder(model.encoder, model.decoder)."
            )
        device = next((each.device for each in model.parameters()), None)
        return flow, {name: states_of(each, model, device) for name, each in self.starts.items()}
