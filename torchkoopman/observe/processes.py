"""Sums over the processes of ``torch.distributed``: what makes their moments one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor


def common_widths(
    mine: Mapping[str, int], group: dist.ProcessGroup | None
) -> dict[str, int] | None:
    """Variable → width in the processes that hold rows; None if none does.

    Raises:
        ValueError: processes hold variables of different widths.
    """
    shapes: list[dict[str, int]] = [{} for _ in range(dist.get_world_size(group))]
    dist.all_gather_object(shapes, dict(mine), group=group)
    known = [shape for shape in shapes if shape]
    if any(shape != known[0] for shape in known):
        raise ValueError(f"processes stream variables of different widths: {known}.")
    return known[0] if known else None


def reduce_moments(
    count: float,
    means: Mapping[str, Tensor],
    scatters: Mapping[tuple[str, str], Tensor],
    group: dist.ProcessGroup | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Count and means over all processes; scatters become those about these means, in place."""
    like = next(iter(means.values()))
    total = torch.tensor(float(count), dtype=torch.float64, device=like.device)
    dist.all_reduce(total, group=group)
    shared = {name: mean * (count / total) for name, mean in means.items()}
    _reduce(shared.values(), group)
    for (a, b), scatter in scatters.items():
        scatter.addr_(means[a] - shared[a], means[b] - shared[b], alpha=count)
    _reduce(scatters.values(), group)
    return total, shared


def device_of(group: dist.ProcessGroup | None) -> torch.device:
    """Where a process without rows of its own takes part in a reduction."""
    nccl = dist.get_backend(group) == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


def _reduce(tensors: Iterable[Tensor], group: dist.ProcessGroup | None) -> None:
    for tensor in tensors:
        dist.all_reduce(tensor, group=group)
