"""A trajectory: the states of the chosen layers in one forward pass, in order of execution."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor

from torchkoopman.observe.shapes import check_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchkoopman.observe.views import View

InputSpec = tuple[tuple[int, ...], str]
"""Shape and dtype (as ``"float32"``) of one positional tensor argument of the model."""


@dataclass(frozen=True)
class Trajectory:
    """The states of one forward pass: one per layer, row by row the same sample and position.

    A probe makes them. :meth:`of` makes one of tensors, to fit a surrogate to data of any kind.

    Example:
        >>> trajectory = tk.Trajectory.of(torch.zeros(8, 3), torch.ones(8, 5))
        >>> trajectory.layers, trajectory.batch, trajectory.states["1"].shape
        (('0', '1'), 8, torch.Size([8, 1, 5]))

    Raises:
        ValueError: no state, a state without three axes, layers that differ in batch or positions,
            or labels or a mask of another shape.
        TypeError: states that are complex or whole numbers.
    """

    states: Mapping[str, Tensor]
    """Layer → state of shape ``(batch, positions, features)``, first layer first. Features may
    differ between layers, batch and positions may not."""
    labels: Tensor | None = None
    """Class of each sample, integer, shape ``(batch,)``; negative where unknown."""
    mask: Tensor | None = None
    """True where a row counts, shape ``(batch, positions)``; False for padding and for what is not
    finite."""
    views: Mapping[str, View] = field(default_factory=dict)
    """Layer → how its output became a state, for the way back; empty for bare tensors and for
    stacked states."""
    inputs: tuple[InputSpec, ...] = ()
    """Shape and dtype of the model's positional tensor arguments, from which an export makes
    example inputs."""
    chosen: Tensor | None = None
    """Positions of each sample that are rows, ascending, shape ``(batch, k)``; None for all. The
    others are there for observables that look along the positions."""

    def __post_init__(self) -> None:
        check_shapes(self.states, self.labels, self.mask, self.chosen)

    @classmethod
    def of(cls, *states: Tensor, labels: Tensor | None = None) -> Trajectory:
        """A trajectory of bare tensors, ``(batch, features)`` or ``(batch, positions, features)``.

        The layers are called ``"0"``, ``"1"``, … in the order given. Tensors are copied, since a
        fitter may keep what it is given.
        """
        copies = (state.clone() for state in states)
        shaped = (state[:, None] if state.ndim == 2 else state for state in copies)
        labels = None if labels is None else labels.clone()
        return cls({str(depth): state for depth, state in enumerate(shaped)}, labels=labels)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers' names, first in depth first."""
        return tuple(self.states)

    @property
    def device(self) -> torch.device:
        """The device of the states."""
        return next(iter(self.states.values())).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the states: float64 if one of them has it, float32 otherwise."""
        double = any(state.dtype == torch.float64 for state in self.states.values())
        return torch.float64 if double else torch.float32

    @property
    def batch(self) -> int:
        """Number of samples."""
        return next(iter(self.states.values())).shape[0]

    @property
    def positions(self) -> int:
        """Number of positions of each sample."""
        return next(iter(self.states.values())).shape[1]

    def rows(self) -> dict[str, Tensor]:
        """Layer → its counted rows, shape ``(rows, features)``."""
        return {layer: self.flatten(state) for layer, state in self.states.items()}

    def row_labels(self) -> Tensor | None:
        """The class of each counted row, shape ``(rows,)``: that of its sample."""
        if self.labels is None:
            return None
        return self.flatten(self.labels[:, None, None].expand(-1, self.positions, 1))[:, 0]

    def flatten(self, values: Tensor) -> Tensor:
        """``(batch, positions, features)`` → the counted rows, ``(rows, features)``."""
        values, mask = self._at_chosen(values), self._at_chosen(self.mask)
        return values.flatten(0, 1) if mask is None else values[mask]

    def counted(self) -> Tensor:
        """True where a position is a row: chosen and not masked, shape ``(batch, positions)``."""
        if self.chosen is None:
            return self.full_mask()
        rows = torch.zeros_like(self.full_mask()).scatter_(1, self.chosen, value=True)
        return rows if self.mask is None else rows & self.mask

    def sampled(self) -> Trajectory:
        """The same rows without the positions that were not chosen.

        For fitters whose observables look at each position alone: others would take positions that
        are far apart for neighbours.
        """
        if self.chosen is None:
            return self
        return replace(
            self,
            states={layer: self._at_chosen(state) for layer, state in self.states.items()},
            mask=self._at_chosen(self.mask),
            chosen=None,
        )

    def select(self, samples: Tensor) -> Trajectory:
        """The same trajectory with only the samples of an index or boolean tensor."""
        return replace(
            self,
            states={layer: state[samples] for layer, state in self.states.items()},
            labels=None if self.labels is None else self.labels[samples],
            mask=None if self.mask is None else self.mask[samples],
            chosen=None if self.chosen is None else self.chosen[samples],
        )

    def to(self, device: torch.device) -> Trajectory:
        """The same trajectory on a device."""
        return replace(
            self,
            states={layer: state.to(device) for layer, state in self.states.items()},
            labels=None if self.labels is None else self.labels.to(device),
            mask=None if self.mask is None else self.mask.to(device),
            chosen=None if self.chosen is None else self.chosen.to(device),
        )

    def only(self, layers: Sequence[str]) -> Trajectory:
        """The same trajectory with some of its layers, in the order given.

        Raises:
            ValueError: a layer the trajectory does not have.
        """
        unknown = [layer for layer in layers if layer not in self.states]
        if unknown:
            raise ValueError(f"the trajectory has the layers {self.layers}, not {unknown}.")
        states = {layer: self.states[layer] for layer in layers}
        views = {layer: self.views[layer] for layer in layers if layer in self.views}
        return replace(self, states=states, views=views)

    def delayed(self, delays: int) -> Trajectory:
        """Delay coordinates over layers: each state stacked on the ``delays`` before it.

        As in the DMD layer-replacement paper (arXiv 2409.01308).

        The first ``delays`` layers have no full stack and drop out. In a stack
        ``[x_l; x_{l-1}; …]`` the layer's own features come first.

        Raises:
            ValueError: ``delays`` is negative or leaves fewer than two layers.
        """
        if delays == 0:
            return self
        if not 0 < delays <= len(self.states) - 2:
            raise ValueError(
                f"delays={delays} over {len(self.states)} layers leaves no pair of stacked states; "
                f"it must lie between 0 and {max(0, len(self.states) - 2)}."
            )
        states = list(self.states.values())
        stacked = {
            layer: torch.cat(states[depth - delays : depth + 1][::-1], -1)
            for depth, layer in enumerate(self.states)
            if depth >= delays
        }
        return replace(self, states=stacked, views={})

    @staticmethod
    def concatenate(parts: list[Trajectory]) -> Trajectory:
        """Several trajectories of the same layers as one, in order; samples one after the other."""
        first = parts[0]
        labelled = all(part.labels is not None for part in parts)
        masked = any(part.mask is not None for part in parts)
        chosen = [part.chosen for part in parts if part.chosen is not None]
        if len(chosen) not in (0, len(parts)):
            raise ValueError(
                "some of these trajectories are of chosen positions and some of all; stream them "
                "with one positions=, or take .sampled() of each."
            )
        return Trajectory(
            {layer: torch.cat([part.states[layer] for part in parts]) for layer in first.states},
            torch.cat([part.labels for part in parts if part.labels is not None])
            if labelled
            else None,
            torch.cat([part.full_mask() for part in parts]) if masked else None,
            first.views,
            first.inputs,
            torch.cat(chosen) if chosen else None,
        )

    def full_mask(self) -> Tensor:
        """The mask, or one that counts every row, shape ``(batch, positions)``."""
        if self.mask is not None:
            return self.mask
        return torch.ones(self.batch, self.positions, dtype=torch.bool, device=self.device)

    @overload
    def _at_chosen(self, values: Tensor) -> Tensor: ...
    @overload
    def _at_chosen(self, values: None) -> None: ...
    def _at_chosen(self, values: Tensor | None) -> Tensor | None:
        """``(batch, positions, …)`` at the chosen positions."""
        if values is None or self.chosen is None:
            return values
        return values[torch.arange(len(values), device=values.device)[:, None], self.chosen]
