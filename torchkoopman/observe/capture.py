"""Capture: when a running layer may be read, and how its output is copied out as a state."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Proxy
from torch.fx._symbolic_trace import is_fx_symbolic_tracing

from torchkoopman.observe.layouts import refuse_time_major
from torchkoopman.observe.shapes import DifferentPointsError
from torchkoopman.observe.views import View, look

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from torchkoopman.observe.outputs import OutputChoice
    from torchkoopman.observe.shards import Flow

When = Literal["always", "train", "eval"]


def is_tracing() -> bool:
    """True while somebody records the program instead of running it, or transforms it.

    That is torch.export, torch.fx, make_fx, torch.jit.trace, and torch.func (vmap, grad): reading
    would bake the probe into the recorded program, or take tensors that have no values.
    """
    return (
        torch.compiler.is_exporting()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._is_tracing()
        or is_fx_symbolic_tracing()
    )


def is_traced(value: object) -> bool:
    """True for stand-ins that have a shape but no values, and for tensors wrapped by torch.func."""
    if not isinstance(value, Tensor):
        return isinstance(value, Proxy)
    wrapped: bool = torch._C._functorch.is_functorch_wrapped_tensor(value)
    return wrapped or value.is_meta or isinstance(value, FakeTensor)


def is_recomputing() -> bool:
    """True inside a backward pass, where activation checkpointing runs layers a second time."""
    return torch._C._current_graph_task_id() != -1


@contextmanager
def plain_modes(device_type: str, grad: bool) -> Iterator[None]:
    """Within it autocast and inference mode are off, whatever the model runs under."""
    with (
        torch.inference_mode(False),
        torch.set_grad_enabled(grad),
        torch.autocast(device_type, enabled=False),
    ):
        yield


class PositionSample:
    """The same random positions in every layer of one forward pass, in ascending order.

    Args:
        limit: how many; None for all.
        generator: draws them.
        thin: whether states are read at these positions alone; else they are read whole, for
            listeners that look along the positions.
    """

    def __init__(self, limit: int | None, generator: torch.Generator, thin: bool) -> None:
        self.count = -1
        """Positions of the layers, sampled or not; -1 before the first is read."""
        self._limit = limit
        self._generator = generator
        self._thin = thin
        self._indices: Tensor | None = None

    def of(self, values: Tensor, owner: str) -> Tensor:
        """``values`` of shape ``(batch, positions, ...)`` as they are read.

        Raises:
            DifferentPointsError: ``values`` has another number of positions than the first layer.
        """
        if self.count < 0:
            self._draw(values.shape[1])
        if self._limit is None:
            return values
        if values.ndim < 2 or values.shape[1] != self.count:
            raise DifferentPointsError(
                f"{owner} has shape {tuple(values.shape)}, but the first layer has {self.count} "
                f"positions, so positions={self._limit} cannot take the same ones of both. Choose "
                "layers of one resolution, or flatten the positions into the features with "
                "layout='b ... -> b 1 (...)'."
            )
        if self._indices is None or not self._thin:
            return values
        self._indices = self._indices.to(values.device, non_blocking=True)
        return values.index_select(1, self._indices)

    def chosen(self, batch: int, device: torch.device) -> Tensor | None:
        """The positions that are rows among those read, ``(batch, k)``; None if all are."""
        if self._thin or self._indices is None:
            return None
        return self._indices.to(device, non_blocking=True).expand(batch, -1)

    def _draw(self, count: int) -> None:
        self.count = count
        if self._limit is not None and count > self._limit:
            device = self._generator.device
            order = torch.randperm(count, generator=self._generator, device=device)
            self._indices = order[: self._limit].sort().values


@dataclass(frozen=True)
class Reading:
    """One layer's output as it was when the layer returned: a copy that shares no memory."""

    state: Tensor
    """Shape ``(batch, positions, features)``; rows that are not finite are 0."""
    finite: Tensor | None
    """True where a row is finite, ``(batch, positions)``; ``None`` if all are known to be."""
    view: View
    """Which tensor of the output it is, and in which layout."""

    @classmethod
    def of(cls, tensor: Tensor, view: View, sample: PositionSample, layer: str) -> Reading:
        """Copy ``tensor`` out of the running model; call it under :func:`plain_modes`."""
        state = sample.of(view.layout.to_state(tensor), f"layer {layer!r}")
        if state.dtype.itemsize < torch.float32.itemsize:
            state = state.float()  # statistics in bfloat16 are wrong in the third digit
        if state.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr():
            # What runs next may work in place, as ReLU(inplace=True) does.
            state = state.clone(memory_format=torch.contiguous_format)
        # One pass, no temporary. A row whose sum overflows would overflow every moment too.
        finite = state.sum(-1).isfinite()
        if state.device.type == "cpu" and bool(finite.all()):
            return cls(state, None, view)
        # Elsewhere asking whether all are finite would wait for the device: take the mask unasked.
        return cls(torch.where(finite[..., None], state, 0.0), finite, view)


class Reader:
    """How layers are read: the arguments of ``attach``, resolved to one value per layer.

    A value for one of a layer's calls, ``"name#k"``, comes before that for the layer.
    """

    def __init__(
        self,
        outputs: Mapping[str, OutputChoice | View],
        layouts: Mapping[str, str],
        when: When | None,
        positions: int | None,
        generator: torch.Generator,
        attention_mask: bool = True,
        gather: bool = False,
    ) -> None:
        self.masks = attention_mask
        """Whether the model's own attention mask is taken."""
        self.gather = gather
        """Whether the parts that processes hold are put together."""
        self._outputs = outputs
        self._patterns = layouts
        self.when = when
        self._positions = positions
        self._generator = generator
        self._views: dict[str, tuple[torch.Size, View]] = {}

    def passes_over(self, module: nn.Module) -> str | None:
        """Why a forward pass of ``module`` shall not be read, if so: the mode that it is in."""
        taken = self.when in (None, "always") or module.training == (self.when == "train")
        return None if taken else "mode"

    def sample(self, thin: bool) -> PositionSample:
        """The positions for one forward pass, drawn when its first layer is read."""
        return PositionSample(self._positions, self._generator, thin)

    def read(
        self,
        layer: str,
        call: str,
        module: nn.Module,
        inputs: tuple[Any, ...],
        output: object,
        sample: PositionSample,
        flow: Flow,
    ) -> Reading | str:
        """A reading of a layer's output, or in a word why there is none.

        Args:
            layer: the module's name.
            call: ``"name#k"``, k counting its calls within this forward pass.
            module: the layer.
            inputs: its positional arguments.
            output: what it returned.
            sample: of the positions in this forward pass.
            flow: what was whole in it until now.
        """
        if is_tracing() or is_traced(output):
            return "traced"
        choice = self._outputs.get(call, self._outputs.get(layer))
        shape, view = self._views.get(call, (None, None))
        found = None if view is None else view.find(output)
        again = found is not None and found.is_floating_point() and isinstance(choice, str | View)
        tensor = found if found is not None and again else look(output, choice, layer)
        if is_traced(tensor):
            return "traced"
        with plain_modes(tensor.device.type, grad=False):
            whole = flow.read(tensor, layer, module, inputs, self.gather)
            if whole is None:
                return "sharded"
            if whole.numel() == 0:
                self._refuse_nothing(whole, output, choice, layer, call)
                return "empty batch"
            known = view is not None and (found is tensor or view.function is not None)
            if view is None or not known or shape != whole.shape:
                pattern = self._patterns.get(call, self._patterns.get(layer))
                if pattern is None and not isinstance(choice, View):
                    refuse_time_major(module, tensor, layer)
                view = View.onto(tensor, output, choice, pattern, layer, whole=whole)
                self._views[call] = whole.shape, view
            return Reading.of(whole, view, sample, layer)

    def _refuse_nothing(
        self, tensor: Tensor, output: object, choice: OutputChoice | View | None, *names: str
    ) -> None:
        """Refuse a state without features, whatever the batch; ``names`` of the layer and call."""
        layer, call = names
        pattern = self._patterns.get(call, self._patterns.get(layer))
        if tensor.ndim < 2 or View.onto(tensor, output, choice, pattern, layer).layout.features:
            return
        raise ValueError(
            f"layer {layer!r} gave {tuple(tensor.shape)}, states without features. Choose a layer "
            "that gives some."
        )
