"""A probe: the hooks on chosen layers of a model, and who listens to what they read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, Protocol

from torchkoopman.observe.causes import warn_at_the_end
from torchkoopman.observe.classes import EXPECTED, classes_of, described, mistaken
from torchkoopman.observe.hook_sets import HookSet
from torchkoopman.observe.options import callable_of, check_mask
from torchkoopman.observe.pairing import Pairing
from torchkoopman.observe.trajectory import Trajectory
from torchkoopman.observe.warned import warn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType

    from torch import Tensor, nn

    from torchkoopman.observe.capture import Reader
    from torchkoopman.observe.report import ProbeReport
    from torchkoopman.observe.selection import Selected


class Updatable(Protocol):
    """A fitter, as far as a probe knows it.

    One with an attribute ``contextual`` that is False looks at each row alone: with ``positions=``
    it is then given those positions only, which saves copying the others.
    """

    def update(self, trajectory: Trajectory, /) -> object:
        """Learn from one trajectory."""


Listener = Updatable | Callable[[Trajectory], object]


class Probe:
    """Hooks on the chosen layers of one model; made by :func:`attach`.

    It streams until :meth:`detach`, the end of the ``with``, or until nothing refers to it any
    more. Copies of the model, also pickled ones, do not stream. :meth:`report` counts what could
    not be read. Several threads may run the model: their passes never mix, and listeners are called
    one at a time, in the order in which passes end. Errors are raised inside the model's forward
    pass.

    Example:
        >>> with tk.attach(model, "9") as probe:
        ...     logits = model(test.inputs[:8])
        >>> print(probe.report())
        1 forward passes, 1 trajectories; 0 unpaired, ...
        layer       state  calls  rows  not finite  output  layout
        9      8 × 1 × 32      1     8           0          'batch features -> batch 1 features'

    Raises:
        RuntimeError: a chosen layer did not run, or it ran in a replica of ``nn.DataParallel``.
        TypeError: a layer's output is ambiguous, packed, or not floating-point.
        ValueError: layers of different resolution, a width that changed, a layout, labels or a mask
            that do not fit, nothing at the path of ``output``, a view's structure that differs, or
            one process's part of a state (then hooks are off).
    """

    def __init__(self, model: nn.Module, selected: tuple[Selected, ...], reader: Reader) -> None:
        self._pairing = Pairing(model, selected, reader)
        self._lost: tuple[str, ...] = ()
        self._on = True
        self._hooks = HookSet(model, selected, self._pairing)  # last: an interrupt may come between

    def __enter__(self) -> Probe:
        if not self._on:
            raise RuntimeError("the probe is detached, so it would read nothing: attach() again.")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach(quiet=kind is not None)

    def detach(self, *, quiet: bool = False) -> None:
        """Take all hooks off, and forget a pass that is not complete; a second call does nothing.

        Unless ``quiet``, it warns if there are listeners and no forward pass could be read, and
        says the likely cause. The report tells of passes that broke off or did not pair.
        """
        on, self._on = self._on, False
        self.pause()
        self._pairing.clear()
        if on and not quiet and self._pairing.listeners:
            warn_at_the_end(self.report())

    def pause(self) -> None:
        """Take all hooks off until :meth:`resume`; what was counted stays."""
        try:
            self._lost += self._hooks.lost()
        finally:
            self._hooks.remove()

    def resume(self) -> None:
        """Put the hooks on again, unless they are on or the probe is detached."""
        if self._on:
            self._hooks.put_on()

    def stream_to(self, *listeners: Listener) -> Probe:
        """Pass every trajectory on to these too, in order; returns the probe.

        Args:
            listeners: anything with ``.update(trajectory)``, or callables. They run inside the
                model's forward pass, with gradients on and autocast and inference mode off.

        Raises:
            TypeError: a listener is neither, or a class of listeners.
            ValueError: a listener that the probe has already.
        """
        for listener in listeners:
            call = callable_of(listener)
            if call in self._pairing.listeners:
                name = getattr(listener, "__name__", type(listener).__name__)
                raise ValueError(
                    f"stream_to() got {name} twice; every trajectory would count twice."
                )
            self._pairing.listeners.append(call)
        return self

    def labels(self, classes: Tensor) -> AbstractContextManager[None]:
        """A context that gives the classes of the samples that this thread runs within it.

        Args:
            classes: integers, ``(batch,)`` or ``(batch, 1)``, or a list of integers.

        Raises:
            TypeError: anything else.
        """
        found = classes_of(classes)
        if found is None:
            way_out = mistaken(classes) or ""
            raise TypeError(
                f"probe.labels() got {described(classes)}; {EXPECTED}. {way_out}".strip()
            )
        return self._accompanied("labels", found)

    def mask(self, mask: Tensor) -> AbstractContextManager[None]:
        """A context that says which rows count in the forward passes of this thread within it.

        It takes the place of the model's own ``attention_mask``.

        Args:
            mask: ``(batch, positions)``; True or 1 counts, False or 0 is padding.

        Raises:
            TypeError: no tensor of bool or integers.
        """
        return self._accompanied("mask", check_mask(mask))

    @contextmanager
    def _accompanied(self, what: str, value: Tensor) -> Iterator[None]:
        own = self._pairing.with_pass
        previous, begun = getattr(own, what), own.begun
        try:
            setattr(own, what, value)
            yield
        finally:
            setattr(own, what, previous)
        if own.begun == begun:
            warn(
                f"no forward pass ran inside `with probe.{what}(...)` in this thread, so they went "
                "with none. They belong to the thread that opens the context, and to calls of "
                "the model that the probe is on, not of a compiled version or a copy."
            )

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a probe is of one model in one process, and cannot be copied or pickled; attach() to "
            "the copy of the model, and give the fitters or their state_dict() away."
        )

    def report(self) -> ProbeReport:
        """What was read, passed on and left out so far; the only method that waits for a device."""
        return self._pairing.report(self._lost + self._hooks.lost())
