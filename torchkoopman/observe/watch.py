"""Watching: a model run over a loader's batches, its chosen layers streamed to a listener."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchkoopman.observe.probes import attach

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torchkoopman.observe.probes import Listener, Probe
    from torchkoopman.observe.selection import Layers

Forward = Callable[[nn.Module, Any], object]
"""How to call a model on a batch."""


@dataclass(frozen=True)
class Watch:
    """How a model is run and which of its layers are watched."""

    model: nn.Module
    layers: Layers
    layout: str | None = None
    positions: int | None = None
    forward: Forward | None = None

    def stream(self, batches: Iterable[Any], listener: Listener) -> None:
        """Run the model on the batches in eval mode without gradients; put all modes back."""
        modes = {module: module.training for module in self.model.modules()}
        probe = attach(self.model, self.layers, layout=self.layout, positions=self.positions)
        self.model.eval()
        try:
            with torch.no_grad(), probe.stream_to(listener):
                for batch in batches:
                    self._run(batch, probe)
        finally:
            for module, training in modes.items():
                module.training = training

    def _run(self, batch: Any, probe: Probe) -> None:
        """One forward pass, with labels and mask where the batch has them."""
        args, kwargs, labels = _parts(batch)
        with ExitStack() as stack:
            if labels is not None:
                stack.enter_context(probe.labels(labels))
            if self.forward is not None:
                self.forward(self.model, batch)
                return
            if isinstance(kwargs.get("attention_mask"), Tensor):
                stack.enter_context(probe.mask(kwargs["attention_mask"]))
            device = next((tensor.device for tensor in self.model.parameters()), None)
            to = partial(_moved, device=device)
            self.model(*map(to, args), **{name: to(value) for name, value in kwargs.items()})


def batches_in(loader: Iterable[Any], epochs: int) -> int | None:
    """Batches in all, where the loader knows; one over an iterable data set does not."""
    try:
        return epochs * len(loader)  # type: ignore[arg-type]
    except TypeError:
        return None


def _parts(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any], Tensor | None]:
    """Positional and keyword arguments for the model, and the classes if the batch has any."""
    if isinstance(batch, Mapping):
        kwargs = dict(batch)
        return (), kwargs, _classes(kwargs.pop("labels", None))
    if isinstance(batch, list | tuple):
        *inputs, last = batch
        return (tuple(inputs), {}, _classes(last)) if inputs else ((last,), {}, None)
    return (batch,), {}, None


def _classes(target: Any) -> Tensor | None:
    """The target if it is one integer per sample; regression targets are no classes."""
    if isinstance(target, Tensor) and target.ndim == 1 and not target.is_floating_point():
        return target
    return None


def _moved(value: Any, device: torch.device | None) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value
