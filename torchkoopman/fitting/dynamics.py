"""What stands for depth: one matrix for every step, one for the whole span, or none that helps."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch

from torchkoopman.fitting.quality import Unexplained
from torchkoopman.koopman.regression import koopman_matrix, pool
from torchkoopman.observe.moments import Moments
from torchkoopman.tables import qualities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from torchkoopman.fitting.sampled import Sampled
    from torchkoopman.koopman.observables import Dictionary
    from torchkoopman.observe.pairs import Pair

Dynamics = Literal["auto", "step", "span"]
"""``"step"``: one matrix for the step from each layer to the next, pooled over all of them, so that
every layer is predicted at its depth-time. ``"span"``: the last layer regressed on the first, which
replaces the whole span best and says nothing of the layers between. ``"auto"``: the step matrix
where it is at no layer worse than skipping and at the last not much worse than the span's, by rows
kept out of both; otherwise the span's."""

_SHARE = 5
"""At most one row in this many is kept out of the fits that are compared."""
_WORSE = 1.2
"""A step matrix may leave this many times the variance that the span's matrix leaves unexplained,
since it predicts every layer."""
_CHUNK = 512
"""Rows in float64 at a time."""
_NEGLIGIBLE = 1e-6
"""Differences of unexplained variance below this decide nothing: exact systems leave rounding."""


def check_dynamics(dynamics: str) -> None:
    """Refuse an unknown kind of dynamics.

    Raises:
        ValueError: names the kinds there are.
    """
    if dynamics not in ("auto", "step", "span"):
        raise ValueError(f"dynamics={dynamics!r} is unknown; choose 'auto', 'step' or 'span'.")


@dataclass(frozen=True)
class Fit:
    """A matrix and what it is of."""

    matrix: Tensor
    """The matrix of one step, or of the span; float64, ``(latent, latent)``."""
    kind: Literal["step", "span", "skip"]
    """What it stands for; ``"skip"`` is the identity."""
    notes: tuple[str, ...] = ()
    """Why it is not what one would expect, if so."""


def closed_form(
    total: Moments,
    ends: Moments,
    layers: Sequence[str],
    dynamics: Dynamics,
    ridge: float,
    sampled: Sampled,
    observables: Dictionary,
    *,
    skippable: bool,
) -> Fit:
    """The least-squares matrix of the dynamics asked for, or of the one that held-out rows prefer.

    Args:
        total: moments of the layers' latent states.
        ends: those of ``"start"`` and ``"end"``, the first and the last of them.
        layers: in order of depth.
        dynamics: see ``Dynamics``.
        ridge: relative.
        sampled: latent states of a sample of the rows in ``total``.
        observables: read the state off a latent one.
        skippable: whether all layers have one frame, so that the identity means skipping.
    """
    steps = list(pairwise(layers))
    if dynamics == "step":
        return Fit(koopman_matrix(pool(total, steps), ridge, constant=True), "step")
    whole = Fit(koopman_matrix(ends, ridge, constant=True), "span")
    held = 0
    if dynamics == "auto" and sampled.layers:
        # Whole samples, which their numbers put in an order of chance.
        _, counts = torch.unique_consecutive(sampled.samples, return_counts=True)
        fitting = counts.cumsum(0) <= total.count // _SHARE
        held = int(counts[fitting].sum())
    if held == 0 or total.count - held <= observables.latent:
        return whole
    sample = {layer: values[:held] for layer, values in sampled.layers.items()}
    weights = sampled.weights
    chosen = None if weights is None else weights[:held].to(total.mean(layers[0]))
    rest = total.minus(_moments_of(sample, chosen, total.pairs))
    judge = _Judge(sample, layers, observables)
    span = judge.last(koopman_matrix(rest.between(layers[0], layers[-1]), ridge, constant=True))
    if len(layers) > 2:
        step = judge.each(koopman_matrix(pool(rest, steps), ridge, constant=True))
        note = _objection(step, span, judge.skip() if skippable else {}, layers[-1])
        if note is None:
            return Fit(koopman_matrix(pool(total, steps), ridge, constant=True), "step")
        whole = Fit(whole.matrix, "span", (note,))
    still = judge.skip()[layers[-1]] if skippable else float("inf")
    if span > still + _NEGLIGIBLE:
        ours, skipped = qualities(1 - span, 1 - still)
        note = (
            f"on held-out rows a matrix across the span has R² {ours} at {layers[-1]!r}, and "
            f"skipping the span {skipped}: K is the identity"
        )
        return Fit(torch.eye(observables.latent).to(whole.matrix), "skip", (*whole.notes, note))
    return whole


def _objection(
    step: Mapping[str, float], span: float, skip: Mapping[str, float], last: str
) -> str | None:
    """Why the step matrix is not taken; None if it is."""
    worse = [layer for layer, still in skip.items() if not step[layer] <= still + _NEGLIGIBLE]
    ending = "so K leads across the span and says nothing of the layers between"
    if worse:
        layer = worse[-1]
        ours, skipped = qualities(1 - step[layer], 1 - skip[layer])
        return (
            f"one matrix for every step has R² {ours} at {layer!r} on held-out rows, skipping to "
            f"it {skipped}, {ending}"
        )
    if not step[last] <= _WORSE * span + _NEGLIGIBLE:
        ours, whole = qualities(1 - step[last], 1 - span)
        return (
            f"one matrix for every step has R² {ours} at {last!r} on held-out rows, one across "
            f"the span {whole}, {ending}"
        )
    return None


def _moments_of(
    rows: Mapping[str, Tensor], weights: Tensor | None, pairs: Sequence[Pair]
) -> Moments:
    """The moments of rows, some at a time."""
    moments = Moments(pairs)
    for some in _parts(len(next(iter(rows.values())))):
        part = {layer: values[some] for layer, values in rows.items()}
        moments.update(part, None if weights is None else weights[some])
    return moments


def _parts(rows: int) -> Iterator[slice]:
    """Rows a part at a time."""
    return (slice(start, start + _CHUNK) for start in range(0, rows, _CHUNK))


class _Judge:
    """Unexplained variance, in coordinates, of rows that were kept out."""

    def __init__(
        self, rows: Mapping[str, Tensor], layers: Sequence[str], observables: Dictionary
    ) -> None:
        self._start = rows[layers[0]]
        self._later = {layer: observables.decode(rows[layer]) for layer in layers[1:]}
        self._observables = observables

    def each(self, step: Tensor) -> dict[str, float]:
        """What powers of a step's matrix leave of every later layer."""
        return self._values(lambda latent: latent @ step.T, list(self._later))

    def last(self, matrix: Tensor) -> float:
        """What the span's matrix leaves of the last layer."""
        last = list(self._later)[-1]
        return self._values(lambda latent: latent @ matrix.T, [last])[last]

    def skip(self) -> dict[str, float]:
        """What the first layer's state leaves of every later one."""
        return self._values(lambda latent: latent, list(self._later))

    def _values(self, step: Callable[[Tensor], Tensor], layers: Sequence[str]) -> dict[str, float]:
        told = {layer: Unexplained() for layer in layers}
        for some in _parts(len(self._start)):
            latent = self._start[some].double()
            for layer, unexplained in told.items():
                latent = step(latent)
                unexplained.update(self._observables.decode(latent), self._later[layer][some])
        return {layer: unexplained.value for layer, unexplained in told.items()}
