"""The processes of ``torch.distributed`` that stream shards of one data set, and their exchanges.

Nothing here is called from a hook: a process whose loader ends early would leave others waiting.
"""

from __future__ import annotations

import hashlib
import io
import time
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_map_only

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.distributed.device_mesh import DeviceMesh

    Group = dist.ProcessGroup | DeviceMesh | None
    """Processes with shards of the data: a group, a mesh of one dimension, or None for all."""

_SHORTEST, _LONGEST = 5e-5, 5e-3
"""Seconds between two looks at a collective that is under way."""
_REFUSALS = ValueError, TypeError, RuntimeError, OSError
"""What one process may raise for all of them."""


class Processes:
    """A process group as :meth:`sync` uses it; what it returns is new, and the same in all.

    Args:
        group: processes with shards of the data. Of a mesh with several dimensions that is the
            data-parallel one, ``mesh["dp"]``: along the others processes hold the same rows.
        timeout: seconds that all exchanges may take together; None for the group's own limit each.

    Raises:
        ValueError: a mesh of several dimensions, a group this process is not in, or a timeout that
            is not positive.
    """

    def __init__(self, group: Group = None, timeout: float | None = None) -> None:
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout={timeout} must be a positive number of seconds, or None.")
        self.group = _process_group(group)
        self.rank, self.size = dist.get_rank(self.group), dist.get_world_size(self.group)
        if self.rank < 0:
            raise ValueError(
                f"process {dist.get_rank()} is not in the group given to sync(group=): only the "
                "processes of a group can merge what they streamed."
            )
        self._timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout
        self.device = torch.device("cpu")
        """Where tensors travel."""
        if dist.get_backend(self.group) == "nccl":
            self.device = torch.device("cuda", torch.cuda.current_device())

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over processes, on the device of ``tensor``, which stays as it is."""
        total = tensor.to(self.device, copy=True)
        self._exchange(dist.all_reduce, total)
        return total.to(tensor.device)

    def from_one(self, tensor: Tensor, source: int) -> Tensor:
        """The tensor of process ``source``; all others give one of like shape and dtype."""
        sent = tensor.to(self.device, copy=True).contiguous()
        whence = dist.get_global_rank(self._real_group(), source)
        self._exchange(dist.broadcast, sent, whence)
        return sent.to(tensor.device)

    def gather(self, mine: Any) -> list[Any]:
        """What every process has to say, in the order of their ranks; tensors on the processor."""
        written = io.BytesIO()
        torch.save(mine, written)
        said = torch.frombuffer(bytearray(written.getvalue()), dtype=torch.uint8)
        lengths = torch.zeros(self.size, dtype=torch.long)
        lengths[self.rank] = len(said)
        sizes = self.sum(lengths).tolist()
        padded = torch.zeros(max(sizes), dtype=torch.uint8, device=self.device)
        padded[: len(said)] = said.to(self.device)
        parts = [torch.empty_like(padded) for _ in sizes]
        self._exchange(dist.all_gather, parts, padded)
        return [
            # What the processes of one job say to each other is trusted, as torch trusts it.
            torch.load(io.BytesIO(part[:size].cpu().numpy().tobytes()), "cpu", weights_only=False)
            for part, size in zip(parts, sizes, strict=True)
        ]

    def told(self, say: Callable[[], Any], source: int) -> Any:
        """What process ``source`` says; only there it is asked.

        Raises:
            ValueError: it raised one, and so do all others.
        """
        said: tuple[Any, str | None] = None, None
        if self.rank == source:
            try:
                said = say(), None
            except ValueError as error:
                said = None, str(error)
        result, refusal = self.gather(said)[source]
        if refusal is not None:
            raise ValueError(refusal)
        return result

    def each(self, action: Callable[[], Any]) -> list[Any]:
        """What an action gives in every process, in the order of their ranks.

        Raises:
            ValueError, TypeError, RuntimeError or OSError: one raised it, and so do all others.
        """
        done: tuple[Any, tuple[str, str] | None] = None, None
        error: Exception | None = None
        try:
            done = action(), None
        except (ValueError, TypeError, RuntimeError, OSError) as found:
            kind = next(each for each in _REFUSALS if isinstance(found, each)).__name__
            error, done = found, (None, (kind, str(found)))
        every = self.gather(done)
        if error is not None:
            raise error
        for rank, (_, refusal) in enumerate(every):
            if refusal is not None:
                kinds = {each.__name__: each for each in _REFUSALS}
                raise kinds[refusal[0]](f"process {rank}: {refusal[1]}")
        return [result for result, _ in every]

    def share(self, rows: Tensor) -> tuple[Tensor, float]:
        """This process's part of rows that all have, and what it weighs in a mean over them.

        Of fewer rows than processes some get one that weighs nothing.
        """
        mine = rows[self.rank :: self.size]
        return (mine, len(mine) / len(rows)) if len(mine) else (rows[:1], 0.0)

    def weighted_sum(self, tensors: Sequence[Tensor], weight: float) -> None:
        """Replace tensors by the sum over processes of ``weight`` × theirs, in one exchange.

        In every step of a training, so by the limit of the process group.
        """
        flat = torch.cat([tensor.flatten() for tensor in tensors]).to(self.device) * weight
        self._exchange(dist.all_reduce, flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def __deepcopy__(self, memo: dict[int, Any]) -> Processes:
        return self

    def _exchange(self, operation: Callable[..., Any], *tensors: Any) -> None:
        """One collective.

        Raises:
            RuntimeError: another process died, or did not come within the group's limit.
            TimeoutError: it is not done within what is left of the time.
        """
        try:
            self._finish(operation(*tensors, group=self.group, async_op=True))
        except RuntimeError as error:
            raise RuntimeError(
                f"process {self.rank} of {self.size} waited for another one that died or did not "
                "come. Start all of them again; with checkpoint= tk.fit() goes on from the latest "
                f"one that all have written. What torch says: {error}"
            ) from error

    def _finish(self, work: Any) -> None:
        """Wait for a collective, within what is left of the time.

        Raises:
            TimeoutError: it is not done by then.
        """
        pause = _SHORTEST
        while self._end is not None and not work.is_completed():
            if time.monotonic() > self._end:
                raise TimeoutError(f"not all {self.size} processes came within {self._timeout} s.")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)
        work.wait()

    def _real_group(self) -> dist.ProcessGroup:
        group = self.group or dist.group.WORLD
        assert group is not None
        return group


def moved(state: Any, device: torch.device) -> Any:
    """A state of tensors and plain types, its tensors on a device."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), state)


def digest(*things: Any) -> str:
    """A short name of tensors and plain values, equal where these are."""
    found = hashlib.sha256()
    for thing in things:
        if isinstance(thing, Tensor):
            found.update(repr((tuple(thing.shape), thing.dtype)).encode())
            found.update(
                thing.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            )
        else:
            found.update(repr(thing).encode())
    return found.hexdigest()[:16]


def _process_group(group: Group) -> dist.ProcessGroup | None:
    """The process group meant.

    Raises:
        ValueError: a mesh of several dimensions.
    """
    if not hasattr(group, "mesh_dim_names"):
        return group
    if group.ndim != 1:  # type: ignore[union-attr]
        names = group.mesh_dim_names  # type: ignore[union-attr]
        raise ValueError(
            f"sync(group=) got a mesh of the dimensions {names}; give the one along which "
            'processes hold different rows, as mesh["dp"]. Along the others (tensor or pipeline '
            "parallel) they hold the same rows, which would count several times."
        )
    return group.get_group()  # type: ignore[union-attr]
