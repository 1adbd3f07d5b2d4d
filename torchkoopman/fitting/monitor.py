"""A monitor of a training: it reads some rows of some steps, and takes a spectrum now and then.

Watching every step costs several times the step, and a spectrum costs many, so both are sampled.
While a step is not watched no hook is on the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from torch import nn

from torchkoopman.fitting.monitor_arguments import Log, Record, checked_fitter, require_settings
from torchkoopman.fitting.monitor_sampling import SamplingMonitor
from torchkoopman.observe.probes import attach
from torchkoopman.observe.selection import select
from torchkoopman.observe.warned import warn

if TYPE_CHECKING:
    from torchkoopman.observe.selection import Layers

_POSITIONS = 16
"""The most rows of one sample: they are alike, so a few rows of many samples say more."""


class TrainingMonitor(SamplingMonitor):
    """Follows the spectrum of layers while their network trains.

    One of every ``sample_every`` optimiser steps is watched, from the first on: hooks are on while
    it runs, and ``rows`` rows of each pass in training mode go to the fitter. After every
    ``log_every`` steps the fitter's surrogate is logged and its eigenvalues are followed as by
    :func:`follow`. Global random state is never touched.

    Of many processes one should use it, with its shard of the data. Wrong layers or folders raise
    an error in :meth:`attach` or in the first forward pass; later errors become warnings.

    Example:
        >>> monitor = tk.TrainingMonitor(layers, sample_every=1, log_every=10)
        >>> with monitor.attach(model.train()):
        ...     for _ in range(20):
        ...         loss = model(train.inputs[:500]).mean()  # then loss.backward()
        ...         monitor.step()  # after optimizer.step()
        >>> monitor.tracks.steps
        (10.0, 20.0)

    Args:
        layers: see :func:`attach`.
        log: called as ``log(surrogate, step, tracks=…)`` with ``tk.results.ModeTracks``; its
            ``open(step)`` and ``close()``, if it has both, are called with the training.
            ``torchkoopman_tensorboard.EventFolder("runs/…")`` writes event files.
        fitter: what learns; None for ``DMDFitter(32, halflife=1000)``. Without a ``halflife`` it
            would mix the network with what it was long ago.
        sample_every: optimiser steps from one that is watched to the next.
        log_every: optimiser steps from one spectrum to the next.
        rows: of each forward pass at most, from random samples, up to 16 positions of each.
        **reading: ``layout``, ``output``, ``attention_mask`` and ``gather`` of :func:`attach`.

    Raises:
        ValueError: a number that is not 1 or more.
        TypeError: a number of another kind, or no fitter that can be stopped, saved and reset.
    """

    def __init__(
        self,
        layers: Layers,
        log: Log | None = None,
        fitter: Any = None,
        *,
        sample_every: int = 20,
        log_every: int = 200,
        rows: int = 64,
        **reading: Any,
    ) -> None:
        require_settings(reading, sample_every=sample_every, log_every=log_every, rows=rows)
        one = layers if isinstance(layers, str | nn.Module) or callable(layers) else list(layers)
        self.layers: Layers = one
        self.log = log
        self.fitter = checked_fitter(fitter)
        self.sample_every, self.log_every, self.rows = sample_every, log_every, rows
        self._reading = reading
        self._probe = None
        self._begin()

    @property
    def contextual(self) -> bool:
        """Whether the fitter needs the neighbours of a row."""
        return bool(getattr(self.fitter, "contextual", True))

    def check(self, model: nn.Module) -> tuple[str, ...]:
        """The names of the layers, if they can be watched and are those of the loaded state.

        Raises:
            ValueError: see :func:`attach`; or a state of other layers was loaded.
            TypeError: see :func:`attach`.
        """
        attach(model, self.layers, when="train", **self._reading).detach(quiet=True)
        names = tuple(mark for each in select(model, self.layers) for mark in each.required)
        if self._names and names != self._names:
            raise ValueError(
                f"the monitor's state is of the layers {self._names}, but in this model "
                f"{self.layers!r} selects {names}. Give the layers of the training that is "
                "resumed, or start over without the state."
            )
        return names

    def attach(self, model: nn.Module, step: int | None = None) -> Self:
        """Watch this model from now on, in place of any other.

        Args:
            model: the module that the training calls, neither compiled nor in ``nn.DataParallel``.
            step: optimiser steps that the training has done. None: as many as the monitor has
                seen, or its loaded state says; 0 begins anew.

        Raises:
            ValueError: layers that cannot be watched, or a state of other layers or another step.
            OSError: ``log`` cannot write where it should.
        """
        self.close(quiet=True)
        if step == 0 and (self._passes or self._done):
            self.reset()
        names = self.check(model)
        if step is not None and step != self._done:
            if self._done or self._passes:
                raise ValueError(
                    f"the training continues after step {step}, but the monitor's state is of step "
                    f"{self._done}. Load the state that was saved with the training's, or give "
                    "step=0 to start over."
                )
            warn(
                f"the training continues after step {step}, but no state of a monitor of these "
                "layers was loaded: the curves begin here."
            )
            self._done, self._watching = step, step % self.sample_every == 0
        if isinstance(self.log, Record):
            self.log.open(self._done)
        self._names, self._hindrance, self._given_up = names, "", False
        draws: Any = {"positions": min(self.rows, _POSITIONS), "generator": self._generator}
        try:
            self._probe = attach(model, self.layers, when="train", **draws, **self._reading)
        except BaseException:  # else the log stays open, and no one else writes there
            if isinstance(self.log, Record):
                self.log.close()
            raise
        self._probe.stream_to(self._take)
        if not self._watching:
            self._probe.pause()
        return self

    def close(self, *, quiet: bool = False) -> None:
        """Take the hooks off and close the log; warn, unless ``quiet``, if nothing was logged."""
        probe, self._probe = self._probe, None
        if probe is None:
            return
        probe.detach(quiet=True)
        if isinstance(self.log, Record):
            self.log.close()
        if not quiet and self._done and not self._hindrance and not self._tracker:
            warn(
                f"the training ended after step {self._done}, and nothing was logged: a spectrum "
                f"is taken every {self.log_every} steps. Give a smaller log_every=."
            )

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
        if self._probe is None or self._done == before or self._given_up:
            return
        if self._watching:
            self._probe.pause()
            self._heed(self._probe)
        if self._done // self.log_every > before // self.log_every:
            self._take_spectrum()
        self._watching = self._done // self.sample_every > before // self.sample_every
        if self._watching:
            self._probe.resume()
