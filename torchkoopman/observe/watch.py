"""Watching: a model run over a loader's batches, its chosen layers streamed to a listener."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchkoopman.observe.alone import evaluating, within
from torchkoopman.observe.batches import Forward, called, parts
from torchkoopman.observe.causes import why_nothing
from torchkoopman.observe.classes import Targets
from torchkoopman.observe.names import split_call
from torchkoopman.observe.probes import attach
from torchkoopman.observe.selection import per_layer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Self

    from torchkoopman.observe.outputs import OutputChoice
    from torchkoopman.observe.probe import Listener, Probe
    from torchkoopman.observe.report import ProbeReport
    from torchkoopman.observe.selection import Layers
    from torchkoopman.observe.views import LayoutOption, OutputOption, View


@dataclass(frozen=True)
class Streamed:
    """What came of running a model over a loader."""

    batches: int
    report: ProbeReport
    note: str | None
    """What was not taken for classes, if the batches had targets of another kind."""

    def require(self, argument: str = "loader") -> Self:
        """Refuse a run that left nothing to work with.

        Raises:
            ValueError: no batches, no forward pass that was read, or no row that counts.
        """
        report = self.report
        if not self.batches:
            raise ValueError(
                f"{argument}= gave no batches: no rows to fit, no held-out rows to look at. It is "
                "empty, or an iterator that an earlier pass has used up: give a DataLoader, or a "
                "list."
            )
        if not report.trajectories:
            raise ValueError(
                f"{argument}= gave {self.batches} batches, but none passed anything on: "
                f"{why_nothing(report)}"
            )
        if not report.streams[0].rows:
            spoilt = next((stream.layer for stream in report.streams if stream.not_finite), None)
            why = "the mask leaves all of them out"
            if report.dropped_rows:
                why = f"{report.dropped_rows} are not finite, first in layer {spoilt!r}"
            raise ValueError(
                f"none of the rows that {argument}= gave counts: {why}. Look at the inputs, and "
                "for a layer that overflows."
            )
        return self


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
    classes: bool = False
    """Whether class statistics are wanted, so that targets of another kind are worth a word."""
    gather: bool = False
    """As for :func:`attach`."""
    generator: torch.Generator | None = None
    """Draws the positions; None for one seeded with 0 for each stream."""
    targets: Targets | None = None
    """What is known of the batches' targets; None for new ones for each stream."""

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
        gather: bool = False,
    ) -> Self:
        """A watch that reads layers again as they were read before; see :func:`read_again`."""
        outputs, layouts = read_again(layers, views, output, layout)
        return cls(model, layers, layouts, positions, forward, outputs, gather=gather)

    def stream(
        self,
        batches: Iterable[Any],
        listener: Listener,
        beside: Sequence[tuple[Watch, Listener]] = (),
    ) -> Streamed:
        """Run the model on the batches in eval mode without gradients; put all modes back.

        Args:
            batches: of the loader.
            listener: gets the trajectories.
            beside: watches of other layers of the model, with what gets theirs of the same passes;
                without labels.

        Raises:
            TypeError: a batch that the model does not take, or one number for its labels.
            ValueError: the model is on the meta device.
        """
        _refuse_meta(self.model)
        run = object()
        with within(run):
            probe = self._attached()
            others = [watch._attached().stream_to(each) for watch, each in beside]
        targets, count = self.targets or Targets(self.classes, self.forward is not None), 0
        probe.stream_to(listener)
        with evaluating(self.model), torch.no_grad(), ExitStack() as stack:
            for each in (probe, *others):
                stack.enter_context(each)
            for batch in batches:
                with within(run):
                    self._run(batch, probe, targets)
                count += 1
            for each in (probe, *others):
                each.detach(quiet=True)  # who called asks what came
        return Streamed(count, probe.report(), targets.note)

    def _attached(self) -> Probe:
        return attach(
            self.model,
            self.layers,
            layout=self.layout,
            output=self.output,
            positions=self.positions,
            generator=self.generator,
            gather=self.gather,
        )

    def _run(self, batch: Any, probe: Probe, targets: Targets) -> None:
        """One forward pass, with labels where the batch has them; hooks see the model's mask."""
        args, kwargs, target = parts(None if self.forward else self.model, batch)
        labels = targets.classes(target)
        with ExitStack() as stack:
            if labels is not None:
                stack.enter_context(probe.labels(labels))
            if self.forward is not None:
                self.forward(self.model, batch)
                return
            called(self.model, *moved(self.model, args, kwargs), batch)


def moved(
    model: nn.Module, args: Iterable[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Arguments with their tensors on the model's device.

    Raises:
        ValueError: a tensor on the meta device.
    """
    device = next((tensor.device for tensor in model.parameters()), None)
    to = partial(_moved, device=device)
    return list(map(to, args)), {name: to(value) for name, value in kwargs.items()}


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


def _moved(value: Any, device: torch.device | None) -> Any:
    if isinstance(value, Tensor) and value.is_meta:
        raise ValueError(
            f"a batch holds a tensor of shape {tuple(value.shape)} on the meta device, without "
            "values, so there is nothing to watch; make it on another device."
        )
    return value.to(device) if isinstance(value, Tensor) else value


def _refuse_meta(model: nn.Module) -> None:
    """Refuse a model without values: hooks get no states from it."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    on_meta = next((name for name, tensor in tensors.items() if tensor.is_meta), None)
    if on_meta is not None:
        raise ValueError(
            f"the model's {on_meta!r} is on the meta device, where tensors have a shape and no "
            "values, so there is nothing to watch. Give it values first: "
            "model.to_empty(device='cpu'), then model.load_state_dict(...)."
        )
    if torch.get_default_device().type == "meta":
        raise ValueError(
            "the default device is the meta device, where tensors have a shape and no values; "
            "leave `with torch.device('meta')` before watching a model."
        )
