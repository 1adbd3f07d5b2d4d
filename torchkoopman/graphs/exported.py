"""Exported graphs: where torch.fx cannot trace a model, torch.export runs it and keeps the program.

The graph is one of ATen operations in evaluation mode, without the model's modules; where each
layer's output is in it is noted while the model runs.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from torchkoopman.graphs.frozen import NUMBERS, Taking, storage_of
from torchkoopman.graphs.nodes import LABEL, Traced, labelled, labelled_node
from torchkoopman.graphs.side_effects import SideEffect, refuse_outside
from torchkoopman.observe.costs import unfused
from torchkoopman.observe.facts import PLAIN
from torchkoopman.observe.names import split_call
from torchkoopman.observe.places import filled, read
from torchkoopman.observe.randomness import random_draws
from torchkoopman.observe.surroundings import Surroundings
from torchkoopman.observe.views import find_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torchkoopman.observe.example import Example
    from torchkoopman.observe.places import Place


_LIBRARY = torch.library.Library("torchkoopman", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("output_of(Tensor value, str name) -> Tensor")  # type: ignore[no-untyped-call]


@torch.library.impl(_LIBRARY, "output_of", "CompositeExplicitAutograd")
def _output_of(value: Tensor, name: str) -> Tensor:
    """Marks a layer's output in a graph; it is taken out again.

    With ``torch.library.custom_op`` the marks took a quarter of the time of torch.export.
    """
    return value.clone()


MARK = torch.ops.torchkoopman.output_of.default


def export_span(
    model: nn.Module, example: Example, start: str, end: str, places: Mapping[str, Place]
) -> Traced:
    """The program of ``model`` as torch.export sees it, with the nodes of two layers' outputs.

    All sizes of the inputs that need not be fixed stay free, but for the sizes of images, whose
    divisibility torch.export can spend minutes on. The model is not changed. Hooks on it run along
    and are part of the program, since libraries build on them; one that keeps activations would
    keep torch.export's stand-ins for tensors, so take such hooks off first.

    Args:
        model: any module that torch.export can take: a copy, which is put in eval mode and gets
            hooks.
        example: its inputs.
        start: a name of ``model.named_modules()``, or ``name#k``.
        end: likewise.
        places: where in the two layers' outputs their states are.

    Raises:
        RuntimeError: torch.export cannot take it, or its program does not have the layers' outputs.
    """
    model = model.eval()
    calls: Counter[str] = Counter()
    surroundings = Surroundings(model)
    numbers: set[int] = set()

    def note(values: Sequence[Any]) -> None:
        found = (storage_of(each) for each in values if type(each) is Tensor)
        numbers.update(each for each in found if each is not None)

    for name, module in model.named_modules():
        place = next((places[each] for each in places if split_call(each)[0] == name), None)
        if name:
            module.register_forward_hook(partial(_mark, calls, name, place))
    with surroundings.kept():
        draws = random_draws()
        with Taking(NUMBERS, note):
            root = _exported(model, example, calls).module()
        drew = draws[:2] != random_draws()[:2]
        refuse_outside(model, surroundings.left())
    if drew:
        raise SideEffect(
            f"the forward of {type(model).__name__} draws random numbers by Python or NumPy, and "
            "its program would repeat the present ones: draw them with torch, or swap with "
            "how='eager'."
        )
    assert isinstance(root, fx.GraphModule)
    for part in root.modules():  # also those in which a context manager holds
        if isinstance(part, fx.GraphModule):
            _note_outputs(part, calls, part is root)
    graph, nodes = labelled(root) or (root.graph, {})
    try:
        first, last = (labelled_node(nodes, layer) for layer in (start, end))
    except ValueError as error:
        raise RuntimeError(str(error)) from error
    return Traced(root, graph, first, last, frozenset(numbers))


def _mark(
    calls: Counter[str], name: str, place: Place | None, module: nn.Module, args: Any, output: Any
) -> Any:
    """A forward hook: the layer's state goes through the marking operation."""
    if place is None:
        try:
            place = find_state(output, name)
        except TypeError:  # no state, or several tensors that could be it
            return None
    state = read(output, place)
    if not isinstance(state, Tensor):
        return None
    calls[name] += 1
    return filled(output, place, MARK(state, f"{name}#{calls[name] - 1}"))


def _exported(
    model: nn.Module, example: Example, calls: Counter[str]
) -> torch.export.ExportedProgram:
    """The program with free sizes, or, where these cannot be, with the sizes of the example."""
    failed: Exception | None = None
    for call in (example.with_a_batch().copied(), example.copied()):
        calls.clear()
        shapes: Any = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
        for tensor in call.tensors if failed is None else ():
            free = 1 if tensor.ndim > 3 and tensor.is_floating_point() else tensor.ndim
            shapes[tensor] = dict.fromkeys(range(free), torch.export.Dim.AUTO)
        try:
            with torch.no_grad(), unfused(), _quiet():
                return torch.export.export(model, call.args, call.kwargs, dynamic_shapes=shapes)
        except Exception as error:  # it has many error classes and runs the user's code
            failed = failed or error
    first = (str(failed).strip().splitlines() or [""])[0]
    cache = " A model returns no key-value cache with use_cache=False." if "Cache" in first else ""
    raise RuntimeError(
        f"torch.export cannot take this {type(model).__name__}: {type(failed).__name__}: {first}"
        f"{cache}"
    ) from failed


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch.export's warnings about its internals and the half-made graph it prints."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _note_outputs(part: fx.GraphModule, calls: Counter[str], is_root: bool) -> None:
    """Labels in place of the marking operations; a span cannot end within another graph's node."""
    for node in list(part.graph.nodes):
        if node.target is MARK:
            source, layer = node.args
            name, _ = split_call(layer)
            names = (layer,) if calls[name] > 1 else (layer, name)
            if is_root:
                source.meta[LABEL] = (*source.meta.get(LABEL, ()), *names)
            node.replace_all_uses_with(source)
            part.graph.erase_node(node)
    part.recompile()


def refuse_other_arguments(graph: fx.Graph, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse arguments of another form than those which a program was recorded with.

    Raises:
        RuntimeError: they hold more or fewer values, or another None, text or number.
    """
    info = getattr(graph._codegen, "pytree_info", None)
    if info is None or info.in_spec is None:
        return
    given = pytree.tree_leaves((args, kwargs))
    if len(given) != info.in_spec.num_leaves:
        raise RuntimeError(
            f"this graph takes {info.in_spec.num_leaves} values in its arguments, as the example "
            f"inputs had, and got {len(given)}: swap with an example of this form, or with "
            "how='eager'."
        )
    named = {**dict(zip(info.orig_args, args, strict=False)), **kwargs}
    given = pytree.tree_leaves([named[name] for name in info.orig_args if name in named])
    arguments = [node for node in graph.nodes if node.op == "placeholder"]
    for node, value in zip(arguments, given, strict=False):
        held = node.meta.get("val", value)
        if isinstance(held, PLAIN) and not (isinstance(value, PLAIN) and value == held):
            now = f"a {type(value).__name__}" if isinstance(value, Tensor) else repr(value)
            raise RuntimeError(
                f"this program was recorded with {node.name}={held!r}, which is part of it, and "
                f"got {now}: swap with an example of this form, or with how='eager'."
            )
