"""A series as bytes that are small and that a browser reads: gzip over planes of float32 bytes.

Layout, after ``gzip``: four bytes with the length of the header (little-endian), the header as JSON
(``steps``, ``shape`` of one step's array, ``of``: steps before some were left out, null where
nobody knows, ``error``: the largest relative error of a value, a list if each column was rounded by
itself), and the values. These lie with the step as their last axis, as float32, and of all of them
first the highest bytes, then the next ones, to the lowest: neighbours in time have like exponents,
so that their bytes compress well, and rounded digits take no space.
"""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

Bits = int | tuple[int, ...] | None
"""Binary digits that a value keeps after the leading one: a number for all, or one for each column
of the last axis, of which an older file may have fewer (values of more columns are not rounded);
None for all that a float32 has."""

_MANTISSA = 23
"""Bits after the leading one of a float32."""


def pack(
    steps: Mapping[float, npt.NDArray[np.float64]],
    bits: Bits = None,
    of: int | None = None,
    sampled: bool = False,
) -> bytes:
    """One series.

    Example:
        >>> import gzip
        >>> import numpy as np
        >>> from torchkoopman_panels import pack
        >>> gzip.decompress(pack({0: np.ones(2), 10: np.ones(2)}))[4:20]
        b'{"steps": [0, 10'

    Args:
        steps: step → its array; smaller ones are filled up with NaN.
        bits: binary digits that are kept of each value.
        of: number of steps before some were left out; by default that of ``steps``.
        sampled: whether some of an unknown number are left out.
    """
    order = sorted(steps)
    stacked = stack([steps[step] for step in order])
    with np.errstate(over="ignore"):  # what a float32 cannot hold is infinite
        exact = stacked.astype(np.float32)
    if isinstance(bits, tuple) and stacked.ndim > 1 and stacked.shape[-1] <= len(bits):
        columns = zip(np.moveaxis(exact, -1, 0), bits, strict=False)
        values = np.stack([rounded(column, each) for column, each in columns], -1)
        pairs = zip(np.moveaxis(stacked, -1, 0), np.moveaxis(values, -1, 0), strict=True)
        error: float | list[float] = [largest_error(*pair) for pair in pairs]
    else:
        values = rounded(exact, bits if isinstance(bits, int) else None)
        error = largest_error(stacked, values)
    header = {
        "steps": order,
        "shape": list(stacked.shape[1:]),
        "of": None if sampled else len(order) if of is None else of,
        "error": error,
    }
    text = json.dumps(header).encode()
    planes = np.moveaxis(values, 0, -1).astype(">f4").reshape(-1, 1).view(np.uint8).T
    content = len(text).to_bytes(4, "little") + text + planes.tobytes()
    return gzip.compress(content, mtime=0)


def stack(arrays: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Arrays of as many axes in one, filled up with NaN where some are smaller."""
    shape = np.max([array.shape for array in arrays], 0)
    full = np.full((len(arrays), *shape), np.nan)
    for row, array in zip(full, arrays, strict=True):
        row[tuple(slice(size) for size in array.shape)] = array
    return full


def rounded(values: npt.NDArray[np.float32], bits: int | None) -> npt.NDArray[np.float32]:
    """To the nearest value with so many binary digits after the leading one."""
    dropped = 0 if bits is None else _MANTISSA - bits
    if dropped == 0:
        return values
    raw = np.ascontiguousarray(values).view(np.uint32)
    half = np.uint32(1 << (dropped - 1))
    mask = np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
    kept = ((raw + half) & mask).view(np.float32)
    return np.where(np.isfinite(values) & np.isfinite(kept), kept, values)


def largest_error(exact: npt.NDArray[np.float64], values: npt.NDArray[np.float32]) -> float:
    """Largest relative error of the finite values; 0 where there are none."""
    known = np.isfinite(exact) & np.isfinite(values) & (exact != 0)
    errors = np.abs(values[known] / exact[known] - 1)
    return float(errors.max(initial=0.0))
