"""What :func:`log` has written, read back: which series there are, and the arrays of one."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torchkoopman_panels import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt


@dataclass(frozen=True)
class LoggedSeries:
    """One series of a run."""

    run: str
    tag: str
    span: str
    name: str
    about: dict[str, Any]
    schema: int
    last: int
    """Its last step."""


def series_in(listed: Mapping[str, Mapping[str, Any]]) -> tuple[list[LoggedSeries], list[str]]:
    """Series in the order in which to show them, and sentences on what cannot be shown.

    Args:
        listed: run → tag → ``TensorTimeSeries``, as a data provider lists them.
    """
    found, warnings = [], []
    for run in sorted(listed, key=natural):
        read = [_read(run, tag, each) for tag, each in listed[run].items()]
        known = [each for each in read if each is not None and each.schema <= SCHEMA]
        # Of two series of one name, as a resumed training has them, the older one comes first.
        found += sorted(known, key=lambda each: (natural(each.span), each.name, each.last))
        later = {each.schema for each in read if each is not None} - set(range(SCHEMA + 1))
        if later:
            warnings.append(
                f"Series of run {run!r} were written by a later version of torchkoopman (schema "
                f"{max(later)}; this one knows {SCHEMA}) and are left out. Update torchkoopman to "
                "see them."
            )
        if strange := read.count(None):
            warnings.append(
                f"{strange} series of run {run!r} do not say what they are, and are left out: an "
                "earlier version of torchkoopman, or another program, wrote them."
            )
    return found, warnings


def _read(run: str, tag: str, series: Any) -> LoggedSeries | None:
    """What a series says of itself; None if that is not what :func:`log` writes."""
    try:
        told = json.loads(series.plugin_content, parse_constant=lambda _: None)
        own = {key: told[key] for key in ("schema", "span", "name", "about")}
    except (ValueError, TypeError, KeyError):
        return None
    kinds = (int, str, str, dict)
    if not all(isinstance(each, kind) for each, kind in zip(own.values(), kinds, strict=True)):
        return None
    return LoggedSeries(run=run, tag=tag, last=series.max_step, **own)


def arrays_in(data: Iterable[Any]) -> dict[float, npt.NDArray[np.float64]]:
    """Step → array; of two of one step, the later one.

    Raises:
        ValueError: what is there are no numbers, or not always along as many axes.
    """
    arrays = {float(datum.step): np.asarray(datum.numpy) for datum in data}
    for step, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise ValueError(f"step {step:g} holds {array.dtype} instead of numbers.")
    if len({array.ndim for array in arrays.values()}) > 1:
        raise ValueError("its arrays have now more axes, now fewer.")
    return {step: array.astype(np.float64) for step, array in arrays.items()}


def natural(text: str) -> list[tuple[bool, str, int]]:
    """To sort by: numbers in a text by their value, ``1-9`` before ``1-10``."""
    parts = re.split("([0-9]+)", text)
    return [(k % 2 == 1, "", int(p)) if k % 2 else (False, p, 0) for k, p in enumerate(parts)]
