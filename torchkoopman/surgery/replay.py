"""Replay: an edited model is called as its reference was, and all that it does is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from torchkoopman.graphs.nodes import labelled
from torchkoopman.observe.capture import is_recomputing
from torchkoopman.observe.example import Example
from torchkoopman.observe.facts import Facts, alike
from torchkoopman.surgery.differences import differences, lost
from torchkoopman.surgery.reference import Reference
from torchkoopman.surgery.switching import is_seen
from torchkoopman.surgery.transcript import Failed, transcribe

if TYPE_CHECKING:
    from torchkoopman.surgery.copies import Workbench
    from torchkoopman.surgery.edited import Edited
    from torchkoopman.surgery.evidence import Evidence
    from torchkoopman.surgery.request import SwapRequest
    from torchkoopman.surgery.transcript import Transcript


SHOWN = 3
"""The most differences that an error names."""


class Unproven(RuntimeError):  # noqa: N818 (what the swap would be)
    """An edited model does something else than its reference, or may."""


def prove(edited: Edited, evidence: Evidence, bench: Workbench, request: SwapRequest) -> Transcript:
    """Hold an edited model against what the reference did, and say what it did itself.

    Compared are outputs, arguments that the model fills, what enters the module, gradients of
    inputs and of all parameters outside the span, buffers and attributes afterwards: over calls in
    a row, on the example and a variation of it.

    Raises:
        Unproven: they differ, or the edited model fails.
    """
    copied = bench.to_run(edited.model)
    try:
        with bench.surroundings.kept():
            found = _transcript(copied, edited, evidence, bench.apart)
            found.left |= bench.surroundings.left()
    except Failed as error:
        cause = error.__cause__
        raise Unproven(
            f"the model swapped from {request.start!r} to {request.end!r} fails on the example "
            f"inputs: {type(cause).__name__}: {cause}{edited.advice}"
        ) from cause
    finally:
        bench.restore()
    told = list(differences(evidence.transcript, found, copied, edited))
    if told:
        more = len(told) - SHOWN
        listed = "; ".join(told[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise Unproven(
            f"swapping from {request.start!r} to {request.end!r} changes more than the span, so "
            "something crosses that was not seen: a hook, a context manager, a value kept between "
            "calls, a write in place, random numbers. Against the model with the same module put "
            f"in by a hook: {listed}.{_about_draws(evidence, request)}{edited.unseen}"
        )
    return found


def agrees_in_the_other_mode(
    edited: Edited, evidence: Evidence, found: Transcript, bench: Workbench, request: SwapRequest
) -> bool:
    """Whether the edited model may be switched between training and evaluation.

    Where neither it nor the reference has asked for the mode in the calls that were compared, these
    are the same in both.

    What the span draws at random, and the edited model no longer does, is drawn again by the
    reference, since the later draws are as random either way.
    """
    modules = (*request.model.modules(), *request.module.modules(), *edited.model.modules())
    asked = evidence.transcript.asked or found.asked
    if not asked and is_seen(bench.surroundings, modules):
        return True
    training = not bench.model.training
    reference = Reference(
        _switched(bench.to_run(), training),
        _switched(bench.to_run(request.module), training),
        request.start,
        request.end,
        request.known,
        aligned=True,
    )
    try:
        with bench.surroundings.kept():
            expected = transcribe(
                reference.model, evidence.examples[:1], reference.entered, "nothing"
            )
        if _is_program(edited) and _changes_nothing(expected, bench, request, evidence):
            return True
        copied = _switched(bench.to_run(edited.model), training)
        with bench.surroundings.kept():
            found = transcribe(copied, evidence.examples[:1], (), "nothing")
    except Failed:
        return False
    finally:
        bench.restore()
    same = _return_the_same(expected.calls, found.calls)
    return same and not any(lost(expected.left, found.left, copied, edited))


def _is_program(edited: Edited) -> bool:
    """Whether an edited model calls nothing but operations and the module put in."""
    graph = getattr(edited.model, "graph", None)
    called = () if graph is None else [n.target for n in graph.nodes if n.op == "call_module"]
    return labelled(edited.model) is not None and {*called} <= {edited.module, "_guards_fn"}


def _changes_nothing(
    expected: Transcript, bench: Workbench, request: SwapRequest, evidence: Evidence
) -> bool:
    """Whether neither the reference nor the module put in does anything else in the other mode.

    A program of operations then does in both modes what :func:`prove` has compared.

    Args:
        expected: the reference's first call in the other mode.
        bench: copies of the model.
        request: what is to be swapped.
        evidence: what the reference does in its own mode.
    """
    if expected.left or evidence.transcript.left or getattr(request.module, "takes_mask", False):
        return False
    first = {name: each for name, each in evidence.transcript.calls.items() if "call 1:" in name}
    if not _return_the_same(first, expected.calls):
        return False
    made = []
    for training in (bench.model.training, not bench.model.training):
        module = _switched(bench.to_run(request.module), training)
        given = Example.of((evidence.states[request.start],))
        with bench.surroundings.kept():
            made.append(transcribe(module, (given,), (), "nothing"))
    own, other = made
    return not (own.left or other.left) and _return_the_same(own.calls, other.calls)


def _return_the_same(calls: Facts, others: Facts) -> bool:
    """Whether calls agree, but for what enters the module."""
    names = [name for name in {**calls, **others} if "what enters" not in name]
    return all(
        name in calls and name in others and alike(others[name], calls[name]) for name in names
    )


def _switched(model: nn.Module, training: bool) -> nn.Module:
    return model.train(training)  # as the user will, by methods of its own


def _transcript(copied: nn.Module, edited: Edited, evidence: Evidence, weights: bool) -> Transcript:
    module = copied.get_submodule(edited.module)
    entered: list[Any] = []

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        if is_recomputing():
            return
        state = args[0]
        entered.append(state.detach().clone() if isinstance(state, Tensor) else state)

    module.register_forward_pre_hook(note)
    return transcribe(copied, evidence.examples, entered, evidence.reach, module, weights=weights)


def _about_draws(evidence: Evidence, request: SwapRequest) -> str:
    if not evidence.drew or not request.model.training:
        return ""
    return (
        " The span draws random numbers, so what is drawn after it shifts: swap in eval() mode, "
        "and call train() on the result."
    )
