"""Shards: what one forward pass shows of whole outputs, and of parts that processes hold.

Behind a module whose output is a plain tensor and a part, what modules return is taken for parts
too, until a parallel module gives a whole again. A part that is used later still, past another
branch, is known by the graph of the gradients, or where a layer is given the very tensor.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torchkoopman.observe.placements import (
    Placed,
    gathered,
    is_dtensor,
    local,
    made_of_parts,
    placement,
    placement_of_inputs,
)

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class Flow:
    """What one forward pass has shown of whole outputs and parts until now."""

    parallel: dict[nn.Module, Placed] = field(default_factory=dict)
    """The modules that a parallel style makes return something, and what."""
    followed: set[str] = field(default_factory=set)
    """Streams whose gradients were found to come from whole tensors, in this pass or before."""
    behind: tuple[str, Placed] | None = None
    """The last of them that returned, if its output was a plain tensor and a part."""
    parts: list[weakref.ref[Tensor]] = field(default_factory=list)
    """Plain tensors that are parts."""
    refused: dict[str, str] = field(default_factory=dict)
    """Stream → what is wrong with it."""
    next_whole: dict[str, str] = field(default_factory=dict)
    """Stream → the first parallel module after it whose output was whole."""

    def passed(self, name: str, module: nn.Module, output: Any) -> None:
        """A parallel module returned."""
        first = output
        while isinstance(first, tuple | list) and first:
            first = first[0]
        placed = placement(first, module, self.parallel)
        if placed is None:
            return
        if placed.whole:
            self.behind = None
            self.next_whole = {**dict.fromkeys(self.refused, name), **self.next_whole}
        elif not is_dtensor(first):  # a DTensor tells of itself, wherever it goes
            self.behind = name, placed
            self.parts.append(weakref.ref(first))

    def entered(self, name: str, module: nn.Module) -> None:
        """A module is called with what a style made of its inputs."""
        placed = placement_of_inputs(module)
        if placed is not None:
            self.behind = None if placed.whole else (f"the input of {name}", placed)

    def read(
        self, tensor: Tensor, stream: str, module: nn.Module, inputs: tuple[Any, ...], gather: bool
    ) -> Tensor | None:
        """The whole of a layer's output, or None if there is but a part, which is noted.

        Call it under ``plain_modes``. With ``gather`` the processes of the mesh put their parts
        together: all of them must call.
        """
        placed = placement(tensor, module, self.parallel)
        if placed is not None and not placed.whole:
            if gather and placed.placements:
                return gathered(tensor, placed)
            self.refused[stream] = f"gives each process a part of its state ({placed})"
            return None
        if placed is None and self.behind is not None:
            name, other = self.behind
            self.refused[stream] = (
                f"lies behind {name!r}, which gives each process a part of its state ({other}), so "
                "what it returns is taken for a part"
            )
            return None
        if placed is None and self.parallel and self._from_a_part(tensor, stream, module, inputs):
            self.refused[stream] = (
                "is computed from another layer's output of which each process holds a part, so "
                "what it returns is taken for a part"
            )
            return None
        return local(tensor)

    def _from_a_part(
        self, tensor: Tensor, stream: str, module: nn.Module, inputs: tuple[Any, ...]
    ) -> bool:
        """Whether a plain module's output is known to come from a part, with no whole between."""
        if tensor.grad_fn is not None and stream not in self.followed:
            if made_of_parts(tensor):
                return True
            self.followed.add(stream)  # once is enough, and a deep graph is long
        parts = [part() for part in self.parts]
        given = any(each is part for each in inputs for part in parts if part is not None)
        return given and not any(each in self.parallel for each in module.modules())

    def refusal(self, gather: bool) -> str:
        """What to tell the user of the layers that were refused."""
        lines = []
        for stream, why in self.refused.items():
            after = self.next_whole.get(stream)
            way = f"the next whole layer is {after!r}" if after else "no later layer of it is whole"
            lines.append(f"layer {stream!r} {why}; {way}.")
        gathered = (
            "gather=True puts together what a style or a DTensor tells the place of, and no more."
            if gather
            else "With attach(..., gather=True), and the same probe in every process of the mesh, "
            "the parts of parallel layers are put together."
        )
        return (
            f"{' '.join(lines)} Parts of different processes are not the same features or "
            f"positions, so nothing was passed on, and the probe's hooks are off. {gathered}"
        )
