"""Eager surgery: layers are exchanged for stand-ins, and the model keeps its class and its methods.

There is no graph to prove the cut on. One run shows that the layers are a chain, a replay that
nothing inside the span is used outside, and a run on other inputs with the output of the span's
first layer held fast that nothing else enters.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchkoopman.graphs.cut import SIDE_WORDS
from torchkoopman.graphs.region import Crossing, DirtyCut
from torchkoopman.observe.names import named_module, split_call
from torchkoopman.observe.places import filled, read
from torchkoopman.surgery.chain import find_chain
from torchkoopman.surgery.replay import Recording, prove
from torchkoopman.surgery.request import Plan, Spliced, free_name
from torchkoopman.surgery.standins import StandIn

if TYPE_CHECKING:
    from torchkoopman.observe.places import Place

TOLERANCE = 1e-10
"""Share of the last output's variance that may come from elsewhere: rounding stays far below."""


def by_replacing(plan: Plan) -> Spliced:
    """Exchange the layers of a chain for stand-ins; with ``keep_escapes``, the last output alone.

    Raises:
        DirtyCut: the last output depends on more than the first.
        RuntimeError: there are no example inputs, the layers are no chain, or the replay finds a
            difference.
    """
    recording = plan.recording
    if recording is None:
        raise RuntimeError("eager surgery watches one run of the model: give example_inputs.")
    edit = _override if plan.keep_escapes else _exchange
    spliced = edit(plan)
    share = _unseen_share(plan, recording)
    if share is not None and share > TOLERANCE:
        raise DirtyCut(
            f"a module between the outputs of {plan.start!r} and {plan.end!r} cannot be exact: "
            f"of the last output's change from one input to another a share of {share:.2g} remains "
            "when the first output is held fast, so something else enters the span. Name "
            "arguments of the model that may enter in side_inputs, or choose another span; "
            "how='fx' or 'export' names the value.",
            (Crossing("enters", "unknown", plan.start, (plan.end,)),),
        )
    prove(edit(plan.oracle).model, recording, (plan.start, plan.end))
    if share is None:
        spliced.notes.append(
            "the example inputs cannot be varied, so it was not tried whether anything else "
            "enters the span"
        )
    return spliced


def _exchange(plan: Plan) -> Spliced:
    """A copy with stand-ins for all layers of the chain; the first has the module."""
    assert plan.recording is not None
    model = copy.deepcopy(plan.model)
    running = copy.deepcopy(plan.model).eval()
    places = plan.recording.places
    links = find_chain(running, plan.recording.example, plan.start, plan.end, places)
    for index, link in enumerate(links):
        stand_in = StandIn(link, None if index else plan.module)
        stand_in.training = named_module(model, link.name).training
        _set(model, link.name, stand_in)
    names = tuple(link.name for link in links)
    return Spliced(model, f"{names[0]}.module", names, _notes(plan))


def _set(model: nn.Module, layer: str, module: nn.Module) -> None:
    """Replace a layer under all its names."""
    old = named_module(model, layer)
    for name, each in list(model.named_modules(remove_duplicate=False)):
        if each is old:
            model.set_submodule(name, module)


def _notes(plan: Plan) -> list[str]:
    """What the stand-ins leave undone."""
    assert plan.recording is not None
    notes = []
    if hasattr(plan.model, "save_pretrained"):
        notes.append(
            "save_pretrained knows nothing of the swap, and loading gives random layers: use "
            "tk.export and tk.load"
        )
    sides = plan.recording.example.named(plan.model, SIDE_WORDS)
    if sides and not getattr(plan.module, "takes_mask", False):
        notes.append(f"the module does not see {', '.join(sides)}")
    return notes


def _override(plan: Plan) -> Spliced:
    """A copy in which everything runs, and the last output is then exchanged."""
    assert plan.recording is not None
    model = copy.deepcopy(plan.model)
    for layer in (plan.start, plan.end):
        if split_call(layer)[1] is not None:
            raise RuntimeError(f"layer {layer!r}: one of several calls cannot be overridden")
    end = named_module(model, plan.end)
    containers = nn.Sequential | nn.ModuleList | nn.ModuleDict
    homes = (each for each in (end, model, *end.modules()) if not isinstance(each, containers))
    home = next(homes)
    name = free_name(home, plan.start, plan.end)
    home.add_module(name, plan.module)
    tap = Tap(plan.recording.places[plan.start])
    named_module(model, plan.start).register_forward_hook(tap)
    override = Override(tap, plan.recording.places[plan.end], home, name)
    end.register_forward_hook(override)
    where = next(path for path, module in model.named_modules() if module is plan.module)
    return Spliced(model, where, (), ["all layers go on running: nothing is saved"])


class Tap:
    """A forward hook that keeps a layer's latest state."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.state: Any = None

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Keep the state."""
        self.state = read(output, self.place)


class Override:
    """A forward hook that puts the module's output, of the state kept, into a layer's output."""

    def __init__(self, tap: Tap, place: Place, home: nn.Module, name: str) -> None:
        self.tap, self.place, self.home, self.name = tap, place, home, name

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """The layer's output with another state."""
        state, self.tap.state = self.tap.state, None
        return filled(output, self.place, self.home.get_submodule(self.name)(state))


def _unseen_share(plan: Plan, recording: Recording) -> float | None:
    """How much of the end's state changes with the inputs although the start's output is held.

    Returns the mean square of the change relative to that without holding; None if the inputs
    cannot be varied.
    """
    model = copy.deepcopy(plan.model).eval()
    sides = plan.side_inputs
    if sides is None:
        sides = recording.example.named(model, SIDE_WORDS)
    varied = recording.example.varied(model, sides)
    if varied is None:
        return None
    changes: list[float] = []
    for held in (True, False):
        run = replace(recording, example=varied)
        state = _end_state(model, plan, run, held)
        expected = recording.state(plan.end)
        if not isinstance(state, Tensor) or state.shape != expected.shape:
            return None
        changes.append((state.double() - expected.double()).square().mean().item())
    held_fast, free = changes
    return None if free == 0 else held_fast / free


def _end_state(model: nn.Module, plan: Plan, recording: Recording, held: bool) -> Any:
    """The end's state on varied inputs, with the start's output as it was recorded if ``held``."""
    seen: dict[str, list[Any]] = {plan.start: [], plan.end: []}

    def hook(layer: str, module: nn.Module, inputs: Any, output: Any) -> Any:
        seen[layer].append(output)
        if held and layer == plan.start and len(seen[layer]) - 1 == (split_call(layer)[1] or 0):
            return filled(output, recording.places[layer], recording.state(layer).clone())
        return None

    hooks = [
        named_module(model, layer).register_forward_hook(partial(hook, layer)) for layer in seen
    ]
    try:
        recording.example.run(model)
        output = seen[plan.end][split_call(plan.end)[1] or 0]
        return torch.clone(read(output, recording.places[plan.end]))
    except Exception:  # the model may not take the varied inputs
        return None
    finally:
        for each in hooks:
            each.remove()
