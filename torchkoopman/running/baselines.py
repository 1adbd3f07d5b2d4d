"""Trivial baselines: what a surrogate must beat to be worth anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from torchkoopman.koopman.principal import truncation_rank
from torchkoopman.koopman.regression import ridge_map, ridge_map_of_rows
from torchkoopman.observe.few_rows import FewRows
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs
from torchkoopman.observe.totals import total_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchkoopman.koopman.feature_maps import Affine
    from torchkoopman.observe.processes import Processes
    from torchkoopman.observe.trajectory import Trajectory

_RIDGE = 1e-7
_WIDE = 1024
"""Features above which rows are kept as long as there are fewer: their maps cost less."""


class Baselines:
    """Affine maps from the first layer to the last, from moments of the same stream as the fit."""

    contextual = False

    def __init__(self, delays: int = 0) -> None:
        self.delays = delays
        self._moments: Moments | None = None
        self._layers: tuple[str, str] = ("", "")
        self._few: list[dict[str, Tensor]] = []
        """All rows until now, instead of their moments, where they are wider than many."""

    def update(self, trajectory: Trajectory) -> Self:
        """Take a trajectory's first and last state into the moments, stacked as the fit's are."""
        trajectory = trajectory.delayed(self.delays)
        if self._moments is None:
            self._layers = (trajectory.layers[0], trajectory.layers[-1])
            self._moments = Moments(layer_pairs(self._layers, "ends"))
        rows = trajectory.rows()
        ends = {layer: rows[layer] for layer in dict.fromkeys(self._layers)}
        held = sum(len(part[self._layers[0]]) for part in self._few)
        widest, new = max(each.shape[1] for each in ends.values()), len(rows[self._layers[0]])
        if self._moments.count == 0 and widest > _WIDE and held + new < widest:
            self._few.append({layer: each.clone() for layer, each in ends.items()})
        else:
            self._summed().update(ends)
        return self

    def over(self, processes: Processes) -> Self:
        """Take in what the baselines of all processes have seen; call it once."""
        mine = None if self._moments is None else self._summed()
        widths = {n: mine.features(n) for n in mine.names} if mine and mine.count else None
        said = processes.gather((self._layers, widths))
        known = next(((layers, widths) for layers, widths in said if widths is not None), None)
        if known is not None:
            self._layers, widths = known
            own = mine or Moments(layer_pairs(self._layers, "ends"))
            device = own.mean(self._layers[0]).device if own.count else processes.device
            self._moments = total_of(own, widths, processes, device)
        return self

    def state_dict(self) -> dict[str, Any]:
        """The layers and their moments, as tensors and plain types."""
        moments = None if self._moments is None else self._moments.tensors()
        return {"layers": self._layers, "moments": moments, "few": self._few}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go on from what :meth:`state_dict` said."""
        first, last = state["layers"]
        self._layers, self._moments = (first, last), None
        self._few = [dict(part) for part in state.get("few", [])]
        if state["moments"] is not None:
            self._moments = Moments(layer_pairs(self._layers, "ends")).load(state["moments"])
        return self

    def maps(self, latent: int) -> dict[str, Affine]:
        """Name → weight and bias in float64, from features of the first layer to the last.

        ``"skip"`` takes the first layer's output for the last's (where widths agree), ``"ridge
        map"`` is the best affine map, ``"PCA + linear"`` the best one of ``latent`` principal
        components of the first layer.
        """
        if self._moments is None:
            raise ValueError("the baselines have seen no data yet.")
        if self._few:
            rows = FewRows(self._few)
            maps = {
                "ridge map": ridge_map_of_rows(rows, self._layers, _RIDGE),
                "PCA + linear": ridge_map_of_rows(rows, self._layers, _RIDGE, latent),
            }
        else:
            pair = self._moments.between(*self._layers)
            maps = {
                "ridge map": ridge_map(pair, _RIDGE),
                "PCA + linear": _principal_map(pair, latent),
            }
        weight, bias = maps["ridge map"]
        if len(weight) == weight.shape[1]:
            return {"skip": (torch.eye(len(weight)).to(weight), torch.zeros_like(bias))} | maps
        return maps

    def _summed(self) -> Moments:
        """The moments of all rows until now, those kept included."""
        assert self._moments is not None
        few, self._few = self._few, []
        for part in few:
            self._moments.update(part)
        return self._moments


def _principal_map(pair: Moments, size: int) -> Affine:
    variances, vectors = torch.linalg.eigh(pair.cov("start", "start"))
    size = min(size, truncation_rank(variances.flip(0), -1, pair.count))
    axes: Tensor = vectors.flip(1)[:, :size]
    still = torch.eye(pair.features("end")).to(axes)
    reduced = pair.affine(
        {
            "start": (axes.T, torch.zeros(size).to(axes)),
            "end": (still, torch.zeros(len(still)).to(axes)),
        }
    )
    weight, bias = ridge_map(reduced, _RIDGE)
    return weight @ axes.T, bias
