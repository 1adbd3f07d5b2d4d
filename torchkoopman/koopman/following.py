"""A surrogate beside the network sample by sample: both followed through depth, in planes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchkoopman.koopman.arithmetic import own_precision
from torchkoopman.koopman.paths import EDITED, NETWORK, SURROGATE, Paths
from torchkoopman.koopman.planes import planes_of
from torchkoopman.koopman.prediction import Prediction
from torchkoopman.observe.batches import check_loader
from torchkoopman.observe.even_rows import EvenRows
from torchkoopman.observe.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from torchkoopman.observe.batches import Forward
    from torchkoopman.observe.trajectory import Trajectory
    from torchkoopman.observe.views import LayoutOption, OutputOption

_LABELS = ("labels", "")
"""Where the class of each row is kept, beside states of ``(system, layer)``."""


class Following(Prediction):
    """The part of a surrogate that follows samples; a ``Surrogate`` is one."""

    def paths(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        *,
        samples: int = 200,
        edited: Following | None = None,
        generator: torch.Generator | None = None,
        layout: LayoutOption | None = None,
        output: OutputOption | None = None,
        forward: Forward | None = None,
        gather: bool = False,
    ) -> Paths:
        """Where some samples are at each layer, and where the surrogate puts them from the first.

        Each layer is shown in the plane of its states' two principal axes; each plane is turned to
        the layer before, so that lines from layer to layer can be drawn. The surrogate is asked at
        whole steps of its operator: one fitted across the span knows the ends only.

        The model runs in eval mode without gradients and is given back as it was.

        Example:
            >>> paths = surrogate.paths(model, test.loader(500), samples=50)
            >>> bool(paths.r2[-1, 1] > 0.9), paths.plot().get_title()
            (True, '50 samples through depth')

        Args:
            model: the network that the surrogate was fitted on.
            loader: batches as for :func:`torchkoopman.fit`, best of unseen data; all are run, an
                even sample of rows stays. With labels the classes are shown.
            samples: how many rows stay: positions of samples, where these have several.
            edited: what :func:`torchkoopman.unlearn` made of this surrogate, to show where it puts
                the same samples.
            generator: of the sample; None for one seeded with 0.
            layout: einops pattern of the layers' outputs; by default those of :attr:`views`.
            output: which tensor is a layer's state; by default what :attr:`views` say.
            forward: how to call the model on a batch.
            gather: as for :func:`torchkoopman.fit`.

        Raises:
            ValueError: fewer than two samples asked for or found, an edited surrogate of other
                layers or one that was never edited, or a layer that was read through a function,
                without ``output``.
            TypeError: ``edited`` is no surrogate.
        """
        check_loader(loader)
        if samples < 2:
            raise ValueError(f"paths() got samples={samples}; a plane needs two or more.")
        systems: dict[str, Prediction] = {SURROGATE: self}
        if edited is not None:
            systems[EDITED] = _of_the_same_ends(self, edited)
        drawn = torch.Generator().manual_seed(0) if generator is None else generator
        even = EvenRows(samples, _Kept(systems).of, drawn)
        watch = Watch.of(
            model,
            self.span.watched,
            self.views,
            layout=layout,
            output=output,
            forward=forward,
            gather=gather,
        )

        def listener(trajectory: Trajectory) -> None:
            even.update(self.span.stacked(trajectory))

        watch.stream(loader, listener).require()
        forgotten = [] if edited is None else [c for edit in edited.edits for c in edit.classes]
        return _placed(self, (NETWORK, *systems), even.rows(), tuple(sorted(set(forgotten))))


def _of_the_same_ends(surrogate: Prediction, edited: object) -> Prediction:
    """The edited surrogate, if it leads from the same first layer to the same last one."""
    if not isinstance(edited, Prediction):
        raise TypeError(
            f"paths() got edited= of type {type(edited).__name__}; give the surrogate that "
            "tk.unlearn gave, which is what tk.swap puts into the model."
        )
    ends = [(each.layers[0], each.layers[-1]) for each in (surrogate, edited)]
    if ends[0] != ends[1] or not edited.edits:
        what = (
            f"leads from {ends[1][0]!r} to {ends[1][1]!r}" if edited.edits else "was never edited"
        )
        raise ValueError(
            f"edited= {what}; give what tk.unlearn makes of this surrogate, which leads from "
            f"{ends[0][0]!r} to {ends[0][1]!r}."
        )
    return edited


class _Kept:
    """What is kept of each row: its states, what each system predicts of them, its class."""

    def __init__(self, systems: dict[str, Prediction]) -> None:
        self.systems = systems

    @own_precision
    def of(self, part: Trajectory) -> dict[tuple[str, str], Tensor]:
        """``(batch, positions, features)`` each."""
        layers = self.systems[SURROGATE].layers
        found: dict[tuple[str, str], Tensor] = {
            (NETWORK, layer): part.states[layer] for layer in layers
        }
        for name, system in self.systems.items():
            dtype = next(system.parameters()).dtype
            latent = system.encode(part.states[layers[0]].to(dtype), layers[0], part.mask)
            for layer in system.layers:
                time = system.time(layer)
                if system.operator.exact_at(time):
                    found[name, layer] = system.decode(system.operator(latent, time), layer)
        unknown = torch.full((part.batch,), -1, device=part.device)
        labels = unknown if part.labels is None else part.labels.long()
        found[_LABELS] = labels[:, None].expand(-1, part.positions)
        return found


def _placed(
    surrogate: Prediction,
    systems: tuple[str, ...],
    kept: dict[tuple[str, str], Tensor],
    forgotten: tuple[int, ...],
) -> Paths:
    layers = surrogate.layers
    own = [kept[NETWORK, layer].double().cpu() for layer in layers]
    rows = len(own[0])
    if rows < 2:
        raise ValueError(f"the loader gave {rows} counted row, and a plane needs two or more.")
    points = torch.full((rows, len(layers), len(systems), 2), torch.nan, dtype=torch.float64)
    shares, r2 = points[0].clone(), points[0, :, :, 0].clone()
    for depth, (layer, plane) in enumerate(zip(layers, planes_of(own), strict=True)):
        spread = (own[depth] - plane.center).square().sum()
        for k, system in enumerate(systems):
            states = kept.get((system, layer))
            if states is not None:
                states = states.double().cpu()
                points[:, depth, k] = plane.coordinates(states)
                shares[depth, k] = plane.shares(states)
                r2[depth, k] = 1 - (states - own[depth]).square().sum() / spread
    given = kept[_LABELS].cpu()
    labels = None if (given < 0).all() else given
    return Paths(
        layers, tuple(surrogate.span.times), systems, points, shares, r2, labels, forgotten
    )
