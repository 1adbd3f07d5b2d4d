"""Whether this process is one of several."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch.distributed as dist

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    Group = dist.ProcessGroup | DeviceMesh | None
    """Processes with shards of the data: a group, a mesh of one dimension, or None for all."""


def initialised() -> bool:
    """Whether this process belongs to a process group."""
    return dist.is_available() and dist.is_initialized()


def alone(caller: str, why: str = "") -> None:
    """Refuse to be one of several processes.

    Args:
        caller: as the user calls it.
        why: what to do instead.

    Raises:
        RuntimeError: a process group of several was made, or a launcher started several.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) if launched() else 1
    several = dist.get_world_size() if initialised() else several
    if several > 1:
        raise RuntimeError(f"{caller} is one of {several} processes here. {why}")


def launched() -> bool:
    """Whether torchrun started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()
