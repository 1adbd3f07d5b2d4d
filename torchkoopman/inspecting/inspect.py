"""``tk.inspect``: one look at a network's repeated blocks, from one pass over the data."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from tqdm.auto import tqdm

from torchkoopman.inspecting.assembling import measured
from torchkoopman.inspecting.choosing import asked_for, repeated
from torchkoopman.inspecting.chosen import thinned
from torchkoopman.inspecting.first_pass import first_pass
from torchkoopman.inspecting.gathering import Gathering, memory_of
from torchkoopman.observe.batches import batches_in
from torchkoopman.observe.costs import CostMeter
from torchkoopman.observe.interrupts import uninterrupted
from torchkoopman.observe.randomness import random_states, set_random_states
from torchkoopman.observe.unseen import refuse_unseen
from torchkoopman.observe.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torchkoopman.inspecting.chosen import Chosen
    from torchkoopman.inspecting.inspection import Inspection
    from torchkoopman.observe.batches import Forward
    from torchkoopman.observe.selection import Layers
    from torchkoopman.observe.views import LayoutOption, OutputOption

_MAX_BYTES = 2 * 2**30
"""Memory of all moments; with more, fewer layers are taken."""


def inspect(
    model: nn.Module,
    loader: Iterable[Any],
    layers: Layers | None = None,
    *,
    rows: int | None = 20_000,
    positions: int | None = 32,
    rank: int = 256,
    points: int = 300,
    layout: LayoutOption | None = None,
    output: OutputOption | None = None,
    forward: Forward | None = None,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Inspection:
    """One look at a network: its repeated blocks, how linear they are, their spectra and shapes.

    Without ``layers`` it takes the longest run of siblings of one class, or of a pattern of
    classes such as Linear, Tanh, whose states are of the same points; or of the calls of a module
    that takes again what it gave. Blocks that do not take what the one before gave count half, and
    must be three or more; of several runs as long the one that holds most parameters is taken, and
    none within the blocks of another. The state before the first block is taken too where a module
    gives it. The result says which layers these are.

    The loader is gone through once, and no further than there are rows enough; its first batch is
    also used to find the blocks and to count operations. The model runs in eval mode without
    gradients and is given back as it was, as are the random number generators. A measure that
    fails is listed in ``skipped`` with its reason, and the others stand.

    R² is that of :func:`torchkoopman.rank_spans`: of rows that the fit has not seen. Spectra, ranks
    of maps and non-normality are of affine maps by :class:`torchkoopman.DMDFitter`, fitted without
    every tenth sample; on rows of those the whole span's surrogate is judged, and shapes compared.
    At layers that this surrogate says nothing of (``record.dynamics`` is ``"span"``) the shape is
    that of the best affine map from the first layer. With many processes each looks at its own
    batches.

    Example:
        >>> inspection = tk.inspect(model, train.loader(500), progress=False)
        >>> inspection.layers
        ('1', '3', '5', '7', '9')
        >>> all(block.r2 > block.skip for block in inspection.blocks)
        True

    Args:
        model: any eager module.
        loader: batches as for :func:`torchkoopman.fit`, two or more, shuffled.
        layers: two or more, as for :func:`torchkoopman.attach`, in place of those that are found.
        rows: no further batch is taken once so many rows came; None takes all batches.
        positions: take so many random positions of each sample at most; None takes all.
        rank: directions of most variance that spectra, ranks of maps and non-normality are
            computed on, where layers are wider.
        points: rows whose shape is looked at; loops are those of 200 of them at most.
        layout: einops pattern of the layers' outputs, as for :func:`torchkoopman.attach`.
        output: which tensor is a layer's state, likewise.
        forward: how to call the model on a batch, if not as :func:`torchkoopman.fit` does.
        generator: draws positions and rows; None for one seeded with 0.
        progress: show a bar, and print the result.

    Raises:
        ValueError: no blocks that repeat (it lists what there is), layers of which no two have the
            same positions, a loader without batches or rows, layers too wide for 2 GiB of moments,
            or a number out of range.
        TypeError: no model, or no loader of batches.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"inspect() got a {type(model).__name__} as the model; give an nn.Module.")
    for name, value, least in (("rows", rows, 1), ("rank", rank, 1), ("points", points, 2)):
        _check(name, value, least, optional=name == "rows")
    refuse_unseen(model, [""])
    draws = torch.Generator().manual_seed(0) if generator is None else generator
    length = batches_in(loader)
    with _same_random_states():
        batches = iter(loader)
        first = list(islice(batches, 1))
        if not first:
            Watch(model, "").stream([], print).require()
        watch = Watch(model, "", layout, positions, forward, output, generator=draws)
        chosen = _chosen(watch, first[0], layers)
        watch = replace(watch, layers=list(chosen.layers))
        with CostMeter(model) as meter:
            replace(watch, positions=None, generator=None).stream(first, meter)
        gathering = Gathering(chosen.widths, rank, rows, draws)
        bar = tqdm(chain(first, batches), "stream", length, disable=not progress)
        watch.stream(gathering.batches(bar), gathering).require()
        left = chosen, gathering, meter.costs, positions, points, progress
        found = measured(type(model).__name__, *left)
    if progress:
        tqdm.write(str(found))
    return found


def _chosen(watch: Watch, batch: Any, layers: Layers | None) -> Chosen:
    """The layers, as many as memory allows.

    Raises:
        ValueError: not even two.
    """
    seen = first_pass(watch, batch)
    model = watch.model
    chosen = repeated(model, seen) if layers is None else asked_for(model, seen, layers)
    count = len(chosen.layers)
    while count > 2 and memory_of(thinned(chosen, count).widths) > _MAX_BYTES:
        count -= 1
    if count < len(chosen.layers):
        chosen = thinned(chosen, count)
    if (needed := memory_of(chosen.widths)) > _MAX_BYTES:
        raise ValueError(
            f"the layers {list(chosen.layers)} have {list(chosen.widths)} features, whose moments "
            f"take {needed / 2**30:.1f} GiB; inspect() takes {_MAX_BYTES / 2**30:.0f} GiB at most. "
            "Choose narrower layers=, put axes among the positions, or average over them: "
            "layout='b c h w -> b c, mean over h w'."
        )
    return replace(chosen, notes=tuple(_channels_first(watch, chosen.positions)))


def _channels_first(watch: Watch, positions: int) -> Iterator[str]:
    """What to look at where what is taken for positions may be channels.

    Three axes are read as ``(batch, positions, features)``, and ``nn.Conv1d`` has them otherwise.
    """
    if watch.layout is not None:
        return
    for name, module in watch.model.named_modules():
        if isinstance(module, nn.Conv1d) and module.out_channels == positions > 1:
            yield (
                f"samples have {positions} positions, as many as {name!r}, a Conv1d, has channels: "
                "if these are channels, give layout='b c t -> b t c'"
            )
            return


def _check(name: str, value: object, least: int, *, optional: bool) -> None:
    """Refuse a number that is none, or too small.

    Raises:
        TypeError: no whole number.
        ValueError: too small.
    """
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"inspect() got {name}={value!r}; give a whole number.")
    if value < least:
        raise ValueError(f"inspect() got {name}={value}; give {least} or more.")


@contextmanager
def _same_random_states() -> Iterator[None]:
    """Give the global random number generators their states back, which loaders draw from."""
    states = random_states()
    try:
        yield
    finally:
        with uninterrupted():
            set_random_states(states)
