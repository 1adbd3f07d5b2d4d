"""``tk.topology_of``: the shape of each layer's cloud beside the surrogate's, on one ε rule."""

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

    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.batches import Forward
    from torchkoopman.observe.views import LayoutOption, OutputOption
    from torchkoopman.topology.betti import BettiCurve
    from torchkoopman.topology.clouds import Kind, Space

_KINDS: dict[Kind, str] = {
    "network": "points of the network at layer {!r}",
    "surrogate": "points of the surrogate at layer {!r}",
}


def topology_of(
    surrogate: Surrogate,
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
    """Betti curves of the network's layers and of the surrogate at the layers' depth-times.

    One ε, from one rule on the network's first layer, serves both systems and all layers, while the
    Koopman-autoencoder paper (arXiv 2505.12809) chooses two so that the counts agree. Whole curves
    over ε are compared too, on scales set by the network's layer alone. The surrogate's cloud at a
    layer is what it predicts there from the first layer, and at the first layer the decoded
    encoding. Both clouds hold the same rows.

    The model runs in eval mode without gradients and is given back as it was. Layers between the
    steps of an operator fitted across the span are left out.

    Example:
        >>> topology = tk.topology_of(
        ...     surrogate, model, test.loader(500), points=200, dimensions=[0], bootstrap=0
        ... )
        >>> [layer.layer for layer in topology.layers], topology.rows  # fitted across the span
        (['1', '9'], 200)

    Args:
        surrogate: of the layers to look at.
        model: the network it was fitted on.
        loader: batches as for :func:`torchkoopman.fit`; all are run, an even sample of rows stays.
        points: rows in each cloud for components, β0; n points take 4 n² bytes.
        dimensions: 0 for components, which always take part, 1 for loops, and so on.
        landmarks: rows for loops and higher dimensions; n points take up to n³ bytes.
        bootstrap: subsamples for the band of each curve, the same rows for all; 0 for none.
        space: ``"states"``, or ``"latent"``: encoded states beside propagated ones.
        normalise: divide each cloud by its RMS distance from its mean, so that shapes are compared
            and not sizes.
        generator: of the sample and the subsamples; None for one seeded with 0.
        layout: einops pattern of the layers' outputs; by default those of the surrogate's
            ``views``.
        output: which tensor is a layer's state; by default what the surrogate's ``views`` say.
        positions: take so many random positions of each sample instead of all.
        forward: how to call the model on a batch.
        gather: as for :func:`torchkoopman.fit`.
        max_bytes: refuse at the start what could need more memory; 2 GiB by default.

    Raises:
        ValueError: too much memory, fewer than two rows in the loader, states that are not finite,
            an unknown space, a layer that was read through a function, without ``output``, or one
            that returns another structure than in the fit.
        ImportError: loops without gudhi.
    """
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
    watched = (*surrogate.span.before, *surrogate.layers)
    watch = Watch.of(
        model,
        watched,
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
    return Topology(len(first), epsilon, space, normalise, layers)


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
