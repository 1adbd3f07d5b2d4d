"""An override: everything runs as it did, and one layer's state is then exchanged."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from torchkoopman.observe.names import named_module, split_call
from torchkoopman.observe.places import filled, read
from torchkoopman.surgery.edited import Edited, free_name
from torchkoopman.surgery.sealed import ADVICE, OffThePath

if TYPE_CHECKING:
    from torchkoopman.observe.places import Place
    from torchkoopman.surgery.copies import Workbench
    from torchkoopman.surgery.evidence import Evidence
    from torchkoopman.surgery.request import SwapRequest


def override(bench: Workbench, request: SwapRequest, evidence: Evidence) -> Edited:
    """A copy in which everything runs, and the last output is then exchanged."""
    model = bench.to_edit()
    for layer in (request.start, request.end):
        if split_call(layer)[1] is not None:
            raise RuntimeError(f"layer {layer!r}: one of several calls cannot be overridden")
    end = named_module(model, request.end)
    containers = nn.Sequential | nn.ModuleList | nn.ModuleDict
    homes = (each for each in (end, model, *end.modules()) if not isinstance(each, containers))
    home = next(homes)
    name = free_name(home, request.start, request.end)
    home.add_module(name, request.module)
    tap = Tap(evidence.places[request.start])
    named_module(model, request.start).register_forward_hook(tap)
    override = Override(tap, evidence.places[request.end], home, name)
    end.register_forward_hook(override)
    where = next(path for path, module in model.named_modules() if module is request.module)
    return Edited(model, where, (), ["all layers go on running: nothing is saved"])


class Tap:
    """A forward hook that keeps a layer's latest state, in each thread."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._local = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        return Tap, (self.place,)

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Keep the state, as it is now: what runs next may write into it."""
        self._local.state = read(output, self.place).clone()

    def take(self) -> Tensor | None:
        """The state, once."""
        state: Tensor | None = getattr(self._local, "state", None)
        self._local.state = None
        return state


class Override:
    """A forward hook that puts the module's output, of the state kept, into a layer's output."""

    def __init__(self, tap: Tap, place: Place, home: nn.Module, name: str) -> None:
        self.tap, self.place, self.home, self.name = tap, place, home, name

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """The layer's output with another state."""
        state = self.tap.take()
        if state is None:
            raise OffThePath(
                f"the last layer of a replaced span ran, and its first did not before it. {ADVICE}"
            )
        return filled(output, self.place, self.home.get_submodule(self.name)(state))
