"""The shape of each layer's cloud beside the surrogate's, on one ε rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchkoopman.observe.batches import check_loader
from torchkoopman.observe.watch import Watch
from torchkoopman.topology.betti import betti_curve, subsamples
from torchkoopman.topology.clouds import Clouds
from torchkoopman.topology.distances import require_cloud, scale
from torchkoopman.topology.persistence import MAX_BYTES, require_memory
from torchkoopman.topology.report import LayerTopology, Topology

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import nn

    from torchkoopman.observe.batches import Forward
    from torchkoopman.observe.views import LayoutOption, OutputOption
    from torchkoopman.topology.clouds import Kind, Space
    from torchkoopman.topology.system import Predicting

_KINDS: dict[Kind, str] = {
    "network": "points of the network at layer {!r}",
    "surrogate": "points of the surrogate at layer {!r}",
}


def topology_of(
    surrogate: Predicting,
    model: nn.Module,
    loader: Iterable[Any],
    *,
    points: int = 1000,
    dimensions: Sequence[int] = (0, 1),
    landmarks: int = 300,
    bootstrap: int = 20,
    space: Space = "states",
    normalise: bool = False,
    generator: torch.Generator | None = None,
    layout: LayoutOption | None = None,
    output: OutputOption | None = None,
    positions: int | None = None,
    forward: Forward | None = None,
    gather: bool = False,
    max_bytes: int = MAX_BYTES,
) -> Topology:
    """Curves of both systems layer by layer; arguments as for ``Surrogate.topology``."""
    check_loader(loader)
    if space not in ("states", "latent"):
        raise ValueError(f"space={space!r} is unknown; choose 'states' or 'latent'.")
    if min(points, landmarks) < 2:
        raise ValueError(f"points={points} and landmarks={landmarks} must be two or more each.")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    widths = [frame.features for frame in surrogate.frames()]
    features = surrogate.latent if space == "latent" else max(widths)
    most = {d: min(points, landmarks) if d else points for d in sorted({0, *dimensions})}
    for dimension, rows in most.items():
        require_memory(rows, features, dimension, max_bytes)
    clouds = Clouds(surrogate, points, space, generator)
    watch = Watch.of(
        model,
        surrogate.span.watched,
        surrogate.views,
        layout=layout,
        output=output,
        positions=positions,
        forward=forward,
        gather=gather,
    )
    watch.stream(loader, clouds)
    network = _prepared(clouds, "network", normalise)
    predicted = _prepared(clouds, "surrogate", normalise)
    first = network[surrogate.layers[0]]
    draws = {d: subsamples(min(rows, len(first)), bootstrap, generator) for d, rows in most.items()}
    times = {layer: surrogate.time(layer) for layer in clouds.layers}
    return compared(network, predicted, times, draws, landmarks, max_bytes, space, normalise)


def compared(
    network: Mapping[str, Tensor],
    surrogate: Mapping[str, Tensor],
    times: Mapping[str, float],
    draws: Mapping[int, Sequence[Tensor]],
    landmarks: int,
    max_bytes: int = MAX_BYTES,
    space: Space = "states",
    normalised: bool = False,
) -> Topology:
    """Curves of two systems' clouds, of the same rows in the same order of chance.

    Args:
        network: layer → rows, ``(rows, features)``; the first layer sets ε.
        surrogate: likewise.
        times: depth-time of each layer, first layer first.
        draws: dimension → row numbers of each subsample, for the bands.
        landmarks: rows that stand for a cloud where all would cost too much: the first ones.
        max_bytes: refuse what would need more.
        space: what the clouds hold.
        normalised: whether each was divided by its size.

    Raises:
        ValueError: fewer than two points, values that are not finite, or too much memory.
    """
    first = network[next(iter(times))]
    epsilon = scale(first)
    layers = []
    for layer, time in times.items():
        curves = {}
        for dimension, drawn in draws.items():
            clouds = (system[layer] for system in (network, surrogate))
            a, b = (cloud[:landmarks] if dimension else cloud for cloud in clouds)
            options: dict[str, Any] = {"subsamples": drawn, "max_bytes": max_bytes}
            own = betti_curve(a, dimension, **options)
            curves[dimension] = own, betti_curve(b, dimension, scales=own.scales, **options)
        layers.append(LayerTopology(layer, time, curves))
    rows = len(first)
    return Topology(rows, min(rows, landmarks), epsilon, space, normalised, tuple(layers))


def _prepared(clouds: Clouds, kind: Kind, normalise: bool) -> dict[Any, Tensor]:
    """Clouds of one kind: refused by name if not finite, brought to one size if asked."""
    found = clouds.of(kind)
    if kind == "network" and len(next(iter(found.values()), ())) < 2:
        raise ValueError(
            "the loader gave fewer than two counted rows, and a cloud needs two or more. A "
            "generator may have been used up by an earlier pass."
        )
    for where, cloud in found.items():
        require_cloud(cloud, _KINDS[kind].format(where))
        if normalise:
            centred = cloud.double() - cloud.double().mean(0)
            size = centred.square().sum(1).mean().sqrt()
            found[where] = centred / torch.where(size > 0, size, 1.0)
    return found
