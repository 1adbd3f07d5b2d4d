"""Placements: whether a tensor is whole, or one process's part of it, and the whole of parts.

Tensor parallelism (``torch.distributed.tensor.parallel``) leaves each process a part: a DTensor
says so itself, but most styles turn it into a plain tensor that looks like any other. What such a
tensor is a part of is read off the style that made it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

_STYLES = ("ColwiseParallel", "RowwiseParallel")
"""Styles of torch whose output function is given the placement of what it returns."""


@dataclass(frozen=True)
class Placed:
    """Where the parts of a tensor are."""

    mesh: Any = None
    placements: tuple[Any, ...] = ()
    """One placement for each dimension of the mesh; empty where they are unknown."""

    @property
    def whole(self) -> bool:
        """Whether every process has all of it."""
        return bool(self.placements) and all(
            each.is_replicate() or size == 1
            for each, size in zip(self.placements, self.mesh.shape, strict=True)
        )

    def __str__(self) -> str:
        if not self.placements:
            return "weights that are DTensors, by a style that does not say what it returns"
        said = ", ".join(map(repr, self.placements))
        return f"{said} over {self.mesh.size()} processes"


def is_dtensor(value: Any) -> bool:
    """Whether it is a distributed tensor; costs nothing where nobody has imported those."""
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(value, tensors.DTensor)


def placement(value: Any, module: nn.Module, parallel: dict[nn.Module, Placed]) -> Placed | None:
    """Where the parts of what a module returned are; None if nothing about it is distributed."""
    if is_dtensor(value):
        return Placed(value.device_mesh, tuple(value.placements))
    known = parallel.get(module)
    if known is None or known.mesh is not None or _distributed(module):
        return known
    return None  # its weights were those of FSDP, which runs the module on whole ones


def parallel_modules(model: nn.Module) -> dict[nn.Module, Placed]:
    """The modules whose output a parallel style decides, or whose weights are distributed.

    Those of FSDP are not among them: it puts weights together before a module runs.
    """
    if "torch.distributed.tensor" not in sys.modules:
        return {}
    found = {}
    for module in model.modules():
        said = _said(module)
        enters = any(dict(_held(hook)) for hook in module._forward_pre_hooks.values())
        if said is not None or enters or _distributed(module):
            found[module] = Placed() if said is None else said
    return found


def refuse_sharded(model: nn.Module, caller: str) -> None:
    """Refuse a model with distributed parameters or buffers.

    Raises:
        ValueError: names the first of them.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_dtensor(tensor):
            placed = placement(tensor, model, {})
            raise ValueError(
                f"{caller} got a model whose {name!r} is a DTensor ({placed}): each process holds "
                "a part of the network, and an edit of a part is none of the whole. Edit a copy in "
                "one process, with the weights that torch.distributed.checkpoint.state_dict."
                "get_model_state_dict gives with StateDictOptions(full_state_dict=True)."
            )


def placement_of_inputs(module: nn.Module) -> Placed | None:
    """Where the parts of a module's inputs are, if a style makes plain tensors of them."""
    for hook in module._forward_pre_hooks.values():
        held = dict(_held(hook))
        style = held.get("self")
        if getattr(style, "use_local_output", False):
            return Placed(
                held.get("device_mesh"), _one(getattr(style, "desired_input_layouts", ()))
            )
    return None


def _distributed(module: nn.Module) -> bool:
    """Whether its own parameters are DTensors that FSDP does not put together."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is not None and isinstance(module, fsdp.FSDPModule):
        return False
    return any(is_dtensor(each) for each in module._parameters.values())


def _said(module: nn.Module) -> Placed | None:
    """What the last parallel style on a module says of its output; None without one."""
    calls = [vars(module).get("forward"), *module._forward_hooks.values()]
    for call in reversed(calls):
        held = dict(_held(call))
        mesh = held.get("device_mesh", held.get("mesh"))
        style, output_fn = held.get("self"), held.get("output_fn")
        if mesh is None or type(mesh).__name__ != "DeviceMesh":
            continue
        if style is not None:  # PrepareModuleOutput, and transformers' styles
            said = getattr(style, "desired_output_layouts", getattr(style, "output_layouts", ()))
            return Placed(mesh, _one(said))
        if isinstance(output_fn, partial):
            kind = output_fn.func.__qualname__
            if kind in (f"{style}._prepare_output_fn" for style in _STYLES):
                return Placed(mesh, tuple(output_fn.args[0]))
            if kind == "SequenceParallel._prepare_output_fn":
                return Placed(mesh, _sequence(module))
        return Placed(mesh)
    return None


def _sequence(module: nn.Module) -> tuple[Any, ...]:
    """Where SequenceParallel puts its input, and so its output."""
    for hook in module._forward_pre_hooks.values():
        input_fn = dict(_held(hook)).get("input_fn")
        if isinstance(input_fn, partial):
            return tuple(input_fn.args[0])
    return ()


def _held(call: Any) -> Iterator[tuple[str, Any]]:
    """The variables that a function of torch or transformers has around it."""
    package = str(getattr(call, "__module__", "")).partition(".")[0]
    if package in ("torch", "transformers") and getattr(call, "__closure__", None):
        for name, cell in zip(call.__code__.co_freevars, call.__closure__, strict=True):
            yield name, cell.cell_contents


def _one(layouts: Any) -> tuple[Any, ...]:
    """A placement where a style gives one for each output: if they agree, else none."""
    given = layouts if isinstance(layouts, tuple | list) else (layouts,)
    return (given[0],) if len({str(each) for each in given}) == 1 and given[0] else ()


def made_of_parts(tensor: Tensor) -> bool:
    """Whether a tensor's gradients would go to parts of a DTensor, other than through a whole."""
    pending, seen = [tensor.grad_fn], set[Any]()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        spec = (
            getattr(node, "dtensor_spec", None) if "ToTorchTensor" in type(node).__name__ else None
        )
        if spec is None:
            pending += [before for before, _ in node.next_functions]
        elif not Placed(spec.mesh, tuple(spec.placements)).whole:
            return True
    return False


def local(tensor: Any) -> Tensor:
    """What this process holds, once a collective under way has filled it."""
    held = tensor.to_local() if is_dtensor(tensor) else tensor
    if type(held).__name__ == "AsyncCollectiveTensor":
        held = held.wait()
    return held  # type: ignore[no-any-return]


def gathered(tensor: Any, placed: Placed) -> Tensor:
    """The parts of all processes of the mesh, put together in each of them."""
    if is_dtensor(tensor):
        return local(tensor.full_tensor())
    (place,), group = placed.placements, placed.mesh.get_group()
    part = local(tensor).detach().contiguous()
    if place.is_partial():
        total = part.clone()
        dist.all_reduce(total, group=group)
        return total
    size = torch.tensor([part.shape[place.dim]], device=part.device)
    sizes = [torch.empty_like(size) for _ in range(dist.get_world_size(group))]
    dist.all_gather(sizes, size, group=group)  # the last part may be smaller
    most = max(int(each) for each in sizes)
    padded = part.new_zeros(
        [most if axis == place.dim % part.ndim else n for axis, n in enumerate(part.shape)]
    )
    padded.narrow(place.dim, 0, part.shape[place.dim]).copy_(part)
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded, group=group)
    return torch.cat(
        [each.narrow(place.dim, 0, int(n)) for each, n in zip(parts, sizes, strict=True)], place.dim
    )
