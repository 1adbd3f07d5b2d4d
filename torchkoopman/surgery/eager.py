"""Eager surgery: layers are exchanged for stand-ins, and the model keeps its class and its methods.

There is no graph to prove the cut on. One run shows that the layers are a chain, a replay that
nothing inside the span is used outside, and a run on other inputs with the output of the span's
first layer held fast that nothing else enters.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from torchkoopman.graphs.cut import SIDE_WORDS
from torchkoopman.graphs.nodes import labelled
from torchkoopman.graphs.region import Crossing, DirtyCut
from torchkoopman.graphs.writing import may_write
from torchkoopman.observe.facts import alike, facts_in
from torchkoopman.observe.names import named_module, split_call
from torchkoopman.observe.places import filled, read
from torchkoopman.surgery.chain import NoChain, find_chain
from torchkoopman.surgery.edited import Edited
from torchkoopman.surgery.override import override
from torchkoopman.surgery.passage import guard
from torchkoopman.surgery.standins import StandIn

if TYPE_CHECKING:
    from torchkoopman.surgery.copies import Workbench
    from torchkoopman.surgery.evidence import Evidence
    from torchkoopman.surgery.request import SwapRequest

_NONE = (
    " What a replaced layer returned besides its state is None now: where the model uses that, "
    "choose a span whose last layer hands on one tensor."
)
TOLERANCE = 1e-10
"""Share of the last output's variance that may come from elsewhere: rounding stays far below."""


def by_replacing(bench: Workbench, request: SwapRequest, evidence: Evidence | None) -> Edited:
    """Exchange the layers of a chain for stand-ins; with ``keep_escapes``, the last output alone.

    Raises:
        DirtyCut: the last output depends on more than the first.
        RuntimeError: there are no example inputs, or the layers are no chain.
    """
    if evidence is None:
        raise RuntimeError("eager surgery watches one run of the model: give example_inputs.")
    if labelled(bench.model) is not None:
        raise RuntimeError("the model is a program of torch.export, without layers to exchange.")
    edited = (override if request.keep_escapes else _exchange)(bench, request, evidence)
    if not request.keep_escapes:
        _refuse_hidden_writes(bench, edited, evidence)
    share = _unseen_share(bench, request, evidence)
    if share is not None and share > TOLERANCE:
        raise DirtyCut(
            f"a module between the outputs of {request.start!r} and {request.end!r} cannot be "
            f"exact: of the last output's change from one input to another a share of {share:.2g} "
            "remains when the first output is held fast, so something else enters the span. Name "
            "arguments of the model that may enter in side_inputs, or choose another span; "
            "how='fx' or 'export' names the value.",
            (Crossing("enters", "unknown", request.start, (request.end,)),),
        )
    if share is None:
        edited.notes.append(
            "the example inputs cannot be varied, so it was not tried whether anything else "
            "enters the span"
        )
    return edited


def _exchange(bench: Workbench, request: SwapRequest, evidence: Evidence) -> Edited:
    """A copy with stand-ins for all layers of the chain; the first has the module."""
    model = bench.to_edit()
    with bench.surroundings.kept():
        links = find_chain(
            bench.to_run(), evidence.example, request.start, request.end, evidence.places
        )
    bench.restore()
    names = tuple(link.name for link in links)
    passage = guard(model, request.start, evidence.places[request.start], names)
    for index, link in enumerate(links):
        stand_in = StandIn(link, None if index else request.module, passage)
        stand_in.copies = evidence.written and not index
        stand_in.training = named_module(model, link.name).training
        _set(model, link.name, stand_in)
    return Edited(model, f"{names[0]}.module", names, _notes(request, evidence), advice=_NONE)


def _refuse_hidden_writes(bench: Workbench, edited: Edited, evidence: Evidence) -> None:
    """Refuse a first layer that may write into its input, where others read that input.

    Whether it writes may depend on values that the example does not have, so its code is read. That
    others read the input shows when it is overwritten after the first stand-in has read it.

    Raises:
        NoChain: it may, and they do.
    """
    first = edited.layers[0]
    if not may_write(named_module(bench.source, first)):
        return
    copied = bench.to_run(edited.model)
    stand_in = named_module(copied, first)
    assert isinstance(stand_in, StandIn)

    def overwrite(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        read((args, kwargs), stand_in.argument).data.fill_(float("nan"))

    stand_in.register_forward_hook(overwrite, with_kwargs=True)
    with bench.surroundings.kept():
        try:
            result = evidence.example.run(copied)
        except Exception:  # what else runs on such values is the user's code
            result = None
    bench.restore()
    facts = dict(facts_in("call 1: output", result))
    if any(not alike(facts.get(name), evidence.transcript.calls[name]) for name in facts) or (
        not facts
    ):
        raise NoChain(
            f"the code of layer {first!r} may write into its input, and the model reads "
            "that input elsewhere, so whether the original would differ there depends on the data"
        )


def _set(model: nn.Module, layer: str, module: nn.Module) -> None:
    """Replace a layer under all its names."""
    old = named_module(model, layer)
    for name, each in list(model.named_modules(remove_duplicate=False)):
        if each is old:
            model.set_submodule(name, module)


def _notes(request: SwapRequest, evidence: Evidence) -> list[str]:
    """What the stand-ins leave undone."""
    notes = []
    if hasattr(request.model, "save_pretrained"):
        notes.append(
            "save_pretrained knows nothing of the swap, and loading gives random layers: use "
            "tk.export and tk.load"
        )
    sides = evidence.example.named(request.model, SIDE_WORDS)
    if sides and not getattr(request.module, "takes_mask", False):
        notes.append(f"the module does not see {', '.join(sides)}")
    return notes


def _kept(output: Any) -> Any:
    return pytree.tree_map_only(Tensor, torch.clone, output)


def _unseen_share(bench: Workbench, request: SwapRequest, evidence: Evidence) -> float | None:
    """How much of the end's state changes with the inputs although the start's output is held.

    Returns the mean square of the change relative to that without holding; None if the inputs
    cannot be varied.
    """
    if not evidence.is_varied:
        return None
    expected = evidence.states[request.end]
    changes: list[float] = []
    model = bench.to_run()
    for held in (True, False):
        with bench.surroundings.kept():
            state = _end_state(model, request, evidence, held)
        bench.restore()
        if not isinstance(state, Tensor) or state.shape != expected.shape:
            return None
        changes.append((state.double() - expected.double()).square().mean().item())
    held_fast, free = changes
    return None if free == 0 else held_fast / free


def _end_state(model: nn.Module, request: SwapRequest, evidence: Evidence, held: bool) -> Any:
    """The end's state on varied inputs, with the start's output as it was recorded if ``held``."""
    seen: dict[str, list[Any]] = {request.start: [], request.end: []}

    def hook(layer: str, module: nn.Module, inputs: Any, output: Any) -> Any:
        seen[layer].append(_kept(output))  # what runs next may write into it
        first = len(seen[layer]) - 1 == (split_call(layer)[1] or 0)
        if held and layer == request.start and first:
            return filled(output, evidence.places[layer], evidence.states[layer].clone())
        return None

    hooks = [
        named_module(model, layer).register_forward_hook(partial(hook, layer)) for layer in seen
    ]
    try:
        evidence.examples[1].run(model)
        output = seen[request.end][split_call(request.end)[1] or 0]
        return torch.clone(read(output, evidence.places[request.end]))
    except Exception:  # the model may not take the varied inputs
        return None
    finally:
        for each in hooks:
            each.remove()
