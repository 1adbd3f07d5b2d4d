"""Swap: a span of a model's layers becomes one module, and back.

All surgery is done on a copy; there are several ways, and one report (:class:`SwapRecord`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils import _pytree as pytree

from torchkoopman.graphs.cut import SIDE_WORDS, check_ends
from torchkoopman.observe.example import Example, ExampleInputs
from torchkoopman.observe.placements import refuse_sharded
from torchkoopman.surgery.copies import Workbench
from torchkoopman.surgery.eager import by_replacing
from torchkoopman.surgery.evidence import Evidence, gather
from torchkoopman.surgery.history import (
    ORIGINAL,
    RECORDS,
    Original,
    SurrogateLike,
    SwapRecord,
    as_json,
    memory,
    swap_history,
    tensors,
)
from torchkoopman.surgery.replay import agrees_in_the_other_mode, prove
from torchkoopman.surgery.request import SwapRequest, ends_of, known_views, present, replacement
from torchkoopman.surgery.splice import by_exporting, by_tracing
from torchkoopman.surgery.swapped import SwappedModule, bind, is_bound, keep_together
from torchkoopman.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torchkoopman.observe.trajectory import InputSpec
    from torchkoopman.surgery.edited import Edited
    from torchkoopman.surgery.transcript import Transcript

__all__ = ["SurrogateLike", "SwapRecord", "swap", "swap_history"]

WAYS: dict[str, Callable[[Workbench, SwapRequest, Evidence | None], Edited]] = {
    "fx": by_tracing,
    "export": by_exporting,
    "eager": by_replacing,
}
"""How a model can be edited, in the order in which ``how="auto"`` tries."""


@torch.inference_mode(False)
def swap(
    model: nn.Module,
    surrogate: SurrogateLike | nn.Module,
    start: str | None = None,
    end: str | None = None,
    how: str = "auto",
    example_inputs: ExampleInputs | None = None,
    *,
    side_inputs: Sequence[str] | None = None,
    keep_escapes: bool = False,
    output: str | Mapping[str, str] | None = None,
) -> nn.Module:
    """A copy of ``model`` in which one module stands between the outputs of two layers.

    The module takes the output of the layer ``start``, and its result is used as the output of
    ``end``. The layers after ``start`` up to ``end`` included are removed, also from the
    state_dict. Where a layer returns a tuple or a dataclass, the module replaces the state in it
    (see :func:`attach`). The swap is refused unless the cut is proven clean.

    There are three ways. ``"fx"`` traces the model with torch.fx; the result is a graph module in
    which everything but the modules around the two layers keeps its name and its training mode. It
    holds the branches that the model took at the time of the swap: swap in the mode in which the
    result will be used. ``"export"`` takes the program that torch.export records, where tracing
    fails; it computes as in eval mode. Both results are of another class than the model and lack
    its other methods; :func:`undo` brings it back. ``"eager"`` keeps the class, so that
    ``generate()`` and training code go on working: the replaced layers are exchanged for stand-ins
    of the same signature. It needs a span of whole layers, each fed by the one before.

    Example:
        >>> edited = tk.swap(model, surrogate)  # from the surrogate's first layer to its last
        >>> edited(test.inputs[:8]).shape
        torch.Size([8, 3])
        >>> [name for name, _ in edited.named_children()]
        ['0', '1', 'koopman_1_to_9', '10']

    Args:
        model: the model; it is not changed. It may have been swapped before.
        surrogate: a fitted surrogate, or any module from output tensor to output tensor. It is
            copied, and must not write into its input.
        start: a name in ``model.named_modules()``; ``name#k`` is its k-th call, from 0. For a
            surrogate one of its layers, by default the first.
        end: likewise; by default the surrogate's last layer.
        how: ``"fx"``, ``"export"``, ``"eager"``, or ``"auto"`` for the first of them that can;
            ``swap_history(edited)[-1]`` says which and why.
        example_inputs: the model's one tensor, its positional arguments, or a mapping of keyword
            arguments; export and eager need them. They test the wiring in eval mode: with the
            recorded output of ``end`` in place of the module, the edited model must return what the
            model returns, bit by bit.
        side_inputs: arguments of the model, or values that a refusal named, which may enter the
            span besides the output of ``start``, because they hold positions or masks and no
            content. By default those with "mask" or "position" in their name.
        keep_escapes: do not refuse when values inside the span are used outside; their computation
            stays. With ``"eager"`` all layers then go on running, and nothing is saved.
        output: which tensor is the state where a layer returns several and a plain module is put
            in: a path such as ``"0.hidden"``, for both layers or by name. A surrogate knows it.

    Raises:
        DirtyCut: a value crosses the border of the span; it is named, with the nearest clean cut.
        ValueError: unknown layers or way, ends in the wrong order, no ends for a plain module, a
            model whose weights are distributed over processes.
        TypeError: no modules, or a layer whose output holds no state.
        RuntimeError: none of the ways is possible; the reason of each is given.
    """
    if how not in ("auto", *WAYS):
        raise ValueError(f"swap() has no way how={how!r}; there are 'auto', {', '.join(WAYS)}.")
    if not isinstance(model, nn.Module):
        raise TypeError(f"swap() edits an nn.Module; it got a {type(model).__name__}.")
    refuse_sharded(model, "swap()")
    start, end = (present(model, layer) for layer in ends_of(surrogate, start, end))
    check_ends(start, end)
    fitted = surrogate if isinstance(surrogate, SurrogateLike) else None
    module = replacement(surrogate, start, end).train(model.training)
    for tensor in list(tensors(model).values())[:1]:
        module.to(tensor.device)
    known = known_views(fitted, (start, end), output)
    request = SwapRequest(model, module, start, end, known, side_inputs, keep_escapes)
    bench = Workbench(model)
    for _ in range(2):  # again on copies of their own, if calls write into parameters
        evidence = None
        if example_inputs is not None:
            example = Example.of(example_inputs)
            evidence = gather(bench, request, example, _sides(request, example))
        elif fitted is not None and fitted.inputs:
            evidence = _made_up(bench, request, fitted.inputs)
        edited, way, why = _first_way(bench, request, evidence, how)
        if not bench.restore(thorough=True):
            break
    return _remembered(bench, edited, _record(edited, request, surrogate, way, why))


def _first_way(
    bench: Workbench, request: SwapRequest, evidence: Evidence | None, how: str
) -> tuple[Edited, str, str]:
    """The first way that is proven, and why not one before it."""
    failures: dict[str, RuntimeError] = {}
    for way in _order(evidence) if how == "auto" else (how,):
        try:
            edited = WAYS[way](bench, request, evidence)
            if evidence is not None:
                found = prove(edited, evidence, bench, request)
                _bind(edited, evidence, found, bench, request)
        except RuntimeError as error:
            failures[way] = error
        else:
            return edited, way, "; ".join(f"{name}: {e}" for name, e in failures.items())
    if len(failures) == 1:
        raise next(iter(failures.values()))
    reasons = "".join(f"\n  {way}: {error}" for way, error in failures.items())
    raise RuntimeError(
        f"no way to swap from {request.start!r} to {request.end!r}:{reasons}\nhow='eager' with "
        "keep_escapes=True replaces the output alone: right values, and nothing saved."
    )


def _order(evidence: Evidence | None) -> Iterable[str]:
    """The ways to try: a program last where it would hold numbers among the arguments fast."""
    given = () if evidence is None else (evidence.example.args, evidence.example.kwargs)
    numbers = [leaf for leaf in pytree.tree_leaves(given) if type(leaf) in (int, float)]
    return ("fx", "eager", "export") if numbers else tuple(WAYS)


def _made_up(
    bench: Workbench, request: SwapRequest, inputs: tuple[InputSpec, ...]
) -> Evidence | None:
    """Evidence on made-up inputs of the shapes that the surrogate saw; None if the model fails."""
    device = next((each.device for each in tensors(bench.model).values()), torch.device("cpu"))
    example = Example.made(inputs, device)
    try:
        return gather(bench, request, example, _sides(request, example))
    except torch.OutOfMemoryError:  # which says nothing of the model
        raise
    except RuntimeError:
        return None


def _bind(
    edited: Edited, evidence: Evidence, found: Transcript, bench: Workbench, request: SwapRequest
) -> None:
    """Let a graph be switched between training and evaluation only if it is right in both."""
    if not isinstance(edited.model, SwappedModule):
        return
    if is_bound(request.model) or not agrees_in_the_other_mode(
        edited, evidence, found, bench, request
    ):
        bind(edited.model)
        mode = "train" if request.model.training else "eval"
        edited.notes.append(f"the graph is right in {mode}() mode only, and refuses the other")


def _sides(request: SwapRequest, example: Example) -> list[str]:
    """The arguments that may enter the span, and so stay when the inputs are varied."""
    if request.side_inputs is not None:
        return list(request.side_inputs)
    return example.named(request.model, SIDE_WORDS)


def _record(
    spliced: Edited, plan: SwapRequest, surrogate: SurrogateLike | nn.Module, how: str, why: str
) -> SwapRecord:
    fitted = surrogate if isinstance(surrogate, SurrogateLike) else None
    return SwapRecord(
        start=plan.start,
        end=plan.end,
        module=spliced.module,
        how=how,
        why=why,
        layers=spliced.layers,
        notes=tuple(spliced.notes),
        side_inputs=None if plan.side_inputs is None else tuple(plan.side_inputs),
        keep_escapes=plan.keep_escapes,
        surrogate=type(surrogate).__name__,
        card=as_json(fitted.card()) if fitted else None,
        config=as_json(fitted.config()) if fitted else None,
        inputs=fitted.inputs if fitted else (),
        removed=_gone(plan.model, spliced.model),
        added=sum(tensor.numel() for tensor in tensors(plan.module).values()),
        version=__version__,
    )


def _gone(model: nn.Module, edited: nn.Module) -> int:
    """Elements of the tensors of a model that have no name in the edited one, each counted once."""
    kept = dict(edited.state_dict(keep_vars=True))
    staying = {
        id(value) for name, value in model.state_dict(keep_vars=True).items() if name in kept
    }
    return sum(tensor.numel() for key, tensor in tensors(model).items() if key not in staying)


def _remembered(bench: Workbench, edited: Edited, record: SwapRecord) -> nn.Module:
    """The edited model with its records and the way back."""
    held = memory(edited.model)
    held[RECORDS] = (*swap_history(bench.model), record)
    keep_together(edited.model, held[RECORDS])
    held[ORIGINAL] = Original(bench.source)  # all copies are made
    return edited.model
