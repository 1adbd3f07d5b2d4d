"""The shape of each layer's cloud beside the surrogate's, on one ε rule."""

from __future__ import annotations

from dataclasses import dataclass
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
    from collections.abc import Iterable, Sequence

    from torch import nn

    from torchkoopman.observe.batches import Forward
    from torchkoopman.observe.views import LayoutOption, OutputOption
    from torchkoopman.topology.betti import BettiCurve
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
    compare = _Comparison(draws, landmarks, max_bytes)
    epsilon = scale(first)
    layers = tuple(
        LayerTopology(layer, surrogate.time(layer), compare(network[layer], predicted[layer]))
        for layer in clouds.layers
    )
    rows = len(first)
    return Topology(rows, min(rows, landmarks), epsilon, space, normalise, layers)


@dataclass(frozen=True)
class _Comparison:
    """How two clouds of one layer become curves on the same scales."""

    draws: dict[int, list[Tensor]]
    landmarks: int
    """Rows that stand for a cloud where all would cost too much: the first of the shuffled ones."""
    max_bytes: int

    def __call__(self, own: Tensor, other: Tensor) -> dict[int, tuple[BettiCurve, BettiCurve]]:
        """Dimension → the network's and the surrogate's curve."""
        curves = {}
        for dimension, draws in self.draws.items():
            a, b = (cloud[: self.landmarks] if dimension else cloud for cloud in (own, other))
            options: dict[str, Any] = {"subsamples": draws, "max_bytes": self.max_bytes}
            network = betti_curve(a, dimension, **options)
            surrogate = betti_curve(b, dimension, scales=network.scales, **options)
            curves[dimension] = network, surrogate
        return curves


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
