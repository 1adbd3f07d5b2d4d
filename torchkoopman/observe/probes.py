"""Probes: hooks on any module, whose outputs leave as trajectories, one per forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from torchkoopman.observe.capture import Reader, When
from torchkoopman.observe.options import check_options
from torchkoopman.observe.probe import Probe
from torchkoopman.observe.selection import Layers, per_layer, select
from torchkoopman.observe.unseen import warn_of_compiled

if TYPE_CHECKING:
    from torchkoopman.observe.views import LayoutOption, OutputOption


def attach(
    model: nn.Module,
    layers: Layers,
    *,
    layout: LayoutOption | None = None,
    output: OutputOption | None = None,
    when: When | None = None,
    positions: int | None = None,
    generator: torch.Generator | None = None,
    attention_mask: bool = True,
    gather: bool = False,
) -> Probe:
    """Hook the chosen layers; every forward pass becomes one trajectory, streamed to listeners.

    A forward pass is one outermost call of a module that holds all chosen layers: the model, or a
    part of it. Use the probe in a ``with``, or call :meth:`Probe.detach`.

    Example:
        >>> seen = []
        >>> with tk.attach(model, layers) as probe:
        ...     _ = probe.stream_to(seen.append)
        ...     logits = model(test.inputs[:8])
        >>> seen[0].layers, seen[0].states["1"].shape
        (('1', '3', '5', '7', '9'), torch.Size([8, 1, 32]))

    Args:
        model: any eager module; nothing is added to it but hooks, which return nothing.
        layers: a name, a wildcard (``*`` stays within one dotted component, ``**`` crosses dots), a
            module, a module type, a callable ``(name, module) -> bool``, or an iterable of these.
            A module called several times a forward gives the streams ``name#0``, ``name#1``, …;
            ``"name#k"`` chooses one.
        layout: einops pattern from a layer's output to ``(batch, positions, features)``, for all
            layers or as ``{name or wildcard: pattern}``. By default it depends on the number of
            axes: two are (batch, features), three (batch, positions, features), four an image's
            (batch, features, height, width); the report names it. ``"b c h w -> b c, mean over h
            w"`` averages, to look at stages of different resolution together; a swap refuses it.
        output: which tensor is the state where a layer returns several: a path such as ``"0"`` or
            ``"0.hidden"``, or a function from the output to a tensor, for all layers or as
            ``{name or wildcard: choice}``. By default the only floating-point tensor with two axes
            or more, else the first item of a tuple or list. ``output=surrogate.views`` reads the
            layers of a surrogate as they were read for it, layouts included.
        when: take forward passes ``"always"``, or only while the outermost module called is in
            ``"train"`` or ``"eval"`` mode. None takes all, and warns once both modes have come.
        positions: take at most this many positions of each sample as rows, the same random ones in
            all layers of one forward pass; None takes all. Observables that look along the
            positions still see all of them.
        generator: draws these positions; None for one seeded with 0. Global random state is never
            touched.
        attention_mask: whether to use the model's own: where the model is called with an
            ``attention_mask`` of shape ``(batch, positions)``, 0 and 1 or bool, positions with 0 do
            not count; with a key-value cache, its last columns. :meth:`Probe.mask` comes before it.
            The report says how many rows count, and why a mask was not used.
        gather: under tensor parallelism, assemble in each process the parts of a layer's state that
            the processes hold. This is a collective inside the forward pass: every process of the
            mesh must have the same probe, or they wait for one another without end. By default such
            layers are refused after the first pass, and the next layer that is whole is named.

    Raises:
        ValueError: a layer that does not exist, is compiled, in an ``nn.DataParallel``, or meant
            under two names; a key of ``layout`` or ``output`` that matches no layer; ``when`` or
            ``positions`` out of range.
        TypeError: ``layers`` or another argument of a kind not named above.
    """
    check_options(
        model=model,
        layout=layout,
        output=output,
        when=when,
        positions=positions,
        generator=generator,
        attention_mask=attention_mask,
        gather=gather,
    )
    selected = select(model, layers)
    names = [each.name for each in selected]
    warn_of_compiled(model, names)
    calls = [call for each in selected if each.calls for call in each.required]
    reader = Reader(
        per_layer(output, names, "output", calls),
        per_layer(layout, names, "layout", calls),
        when,
        positions,
        generator or torch.Generator().manual_seed(0),
        attention_mask,
        gather,
    )
    return Probe(model, selected, reader)
