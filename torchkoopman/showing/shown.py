"""What one result shows at one step: its span, series of arrays, scalars and notes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from torchkoopman_panels import Series


@dataclass(frozen=True)
class Shown:
    """What one result shows at one step, as :func:`series_of` finds it.

    Example:
        >>> linear = tk.fit(model, train.loader(500), ["1", "9"], method="dmd", progress=False)
        >>> shown = tk.showing.series_of(linear)
        >>> shown.span, [series.name for series in shown.series]
        ('1-9', ['spectrum', 'singular_values', 'r2'])
        >>> shown.series[0].values.shape  # 33 modes
        (33, 8)
    """

    span: str
    """What the numbers are of: ``<first layer>-<last layer>``, or what was asked for."""
    series: tuple[Series, ...]
    """Arrays under the names that ``torchkoopman_panels`` knows, float64."""
    scalars: Mapping[str, float] = field(default_factory=dict)
    """Name → value, for curves over a training; slashes make groups. Infinite or NaN where the
    result is."""
    notes: tuple[str, ...] = ()
    """What the result says of itself, a sentence each."""


def span_of(layers: Sequence[str], tag: str) -> str:
    """The name of a span, unless another was given."""
    return tag or f"{layers[0]}-{layers[-1]}"


def listed(values: Tensor) -> list[float]:
    """A vector as floats, from any device."""
    found: list[float] = values.detach().cpu().double().tolist()
    return found
