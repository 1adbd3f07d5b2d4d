"""A halflife: how many rows later a row weighs half as much."""

from __future__ import annotations

import math
from numbers import Real


def check_halflife(halflife: float | None) -> float | None:
    """The halflife, if it is one.

    Raises:
        ValueError: it is not above 0; infinity is None.
        TypeError: it is no number.
    """
    if halflife is None:
        return None
    if isinstance(halflife, bool) or not isinstance(halflife, Real):
        raise TypeError(
            f"halflife={halflife!r} is a {type(halflife).__name__}; give a number of rows, or None "
            "to weigh all rows alike."
        )
    if not 0 < halflife < math.inf:
        raise ValueError(
            f"halflife={halflife} must be a positive number of rows, after which a row weighs half "
            "as much; None weighs all rows alike."
        )
    return float(halflife)
