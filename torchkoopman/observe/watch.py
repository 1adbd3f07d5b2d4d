"""Watching: a model run over a loader's batches, its chosen layers streamed to a listener."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchkoopman.observe.names import split_call
from torchkoopman.observe.probes import attach
from torchkoopman.observe.selection import per_layer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

    from torchkoopman.observe.outputs import OutputChoice
    from torchkoopman.observe.probes import Listener, Probe
    from torchkoopman.observe.report import ProbeReport
    from torchkoopman.observe.selection import Layers
    from torchkoopman.observe.views import LayoutOption, OutputOption, View

Forward = Callable[[nn.Module, Any], object]
"""How to call a model on a batch."""


@dataclass(frozen=True)
class Watch:
    """How a model is run and which of its layers are watched."""

    model: nn.Module
    layers: Layers
    layout: LayoutOption | None = None
    """As for :func:`attach`."""
    positions: int | None = None
    """As for :func:`attach`."""
    forward: Forward | None = None
    """How to call the model on a batch; by default with its tensors, as arguments."""
    output: OutputOption | None = None
    """As for :func:`attach`."""

    @classmethod
    def of(
        cls,
        model: nn.Module,
        layers: Sequence[str],
        views: Mapping[str, View],
        *,
        layout: LayoutOption | None = None,
        output: OutputOption | None = None,
        positions: int | None = None,
        forward: Forward | None = None,
    ) -> Self:
        """A watch that reads layers again as they were read before; see :func:`read_again`."""
        outputs, layouts = read_again(layers, views, output, layout)
        return cls(model, layers, layouts, positions, forward, outputs)

    def stream(self, batches: Iterable[Any], listener: Listener) -> None:
        """Run the model on the batches in eval mode without gradients; put all modes back."""
        modes = {module: module.training for module in self.model.modules()}
        probe = attach(
            self.model,
            self.layers,
            layout=self.layout,
            output=self.output,
            positions=self.positions,
        )
        self.model.eval()
        try:
            with torch.no_grad(), probe.stream_to(listener):
                for batch in batches:
                    self._run(batch, probe)
            _warn_of_padding(probe.report())
        finally:
            for module, training in modes.items():
                module.training = training

    def _run(self, batch: Any, probe: Probe) -> None:
        """One forward pass, with labels where the batch has them; hooks see the model's mask."""
        args, kwargs, labels = _parts(batch)
        with ExitStack() as stack:
            if labels is not None:
                stack.enter_context(probe.labels(labels))
            if self.forward is not None:
                self.forward(self.model, batch)
                return
            device = next((tensor.device for tensor in self.model.parameters()), None)
            to = partial(_moved, device=device)
            self.model(*map(to, args), **{name: to(value) for name, value in kwargs.items()})


def read_again(
    layers: Sequence[str],
    views: Mapping[str, View],
    output: OutputOption | None = None,
    layout: LayoutOption | None = None,
) -> tuple[dict[str, OutputChoice | View], dict[str, str]]:
    """The ``output=`` and ``layout=`` of :func:`attach` by which layers are read as views say.

    Args:
        layers: streams, as a trajectory names them.
        views: how they were read; a layer without one is read by the default rules.
        output: choices that take the place of the views' own.
        layout: patterns that take the place of the views' own.

    Raises:
        ValueError: a layer was read through a function and ``output`` has nothing for it, or a key
            of ``output`` or ``layout`` matches no layer.
    """
    names = list(dict.fromkeys(split_call(layer)[0] for layer in layers))
    calls = [layer for layer in layers if "#" in layer]
    chosen: dict[str, OutputChoice | View] = per_layer(output, names, "output", calls)
    patterns = per_layer(layout, names, "layout", calls)
    outputs: dict[str, OutputChoice | View] = {}
    layouts: dict[str, str] = {}
    for layer in layers:
        name, view = split_call(layer)[0], views.get(layer)
        choice = chosen.get(layer, chosen.get(name, view))
        if choice is not None:
            outputs[layer] = choice
        if view is not None and choice is view and view.function is not None:
            raise ValueError(
                f"layer {layer!r} was read through the function {view.function!r}, of which only "
                "the name is kept, so the layer cannot be read again as it was. Pass the function "
                f"once more, output={{{layer!r}: function}}; or fit on a tensor chosen by its path."
            )
        pattern = patterns.get(layer, patterns.get(name))
        if pattern is None and view is not None:
            pattern = view.layout.pattern
        if pattern is not None:
            layouts[layer] = pattern
    return outputs, layouts


def _warn_of_padding(report: ProbeReport) -> None:
    """Say that padding counts, where a mask was given that could not be taken."""
    axes = [len(stream.layout.split("->")[0].split()) for stream in report.streams]
    if report.masks_aside and max(axes, default=0) > 2:  # with two, samples have no positions
        whys = "; ".join(report.masks_aside)
        warnings.warn(
            f"the model's attention_mask was left aside in {sum(report.masks_aside.values())} of "
            f"{report.trajectories} forward passes, so all positions counted there, padding "
            f"included: {whys}. Give a mask of shape (batch, positions), 0 and 1, to probe.mask().",
            RuntimeWarning,
            stacklevel=4,
        )


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
