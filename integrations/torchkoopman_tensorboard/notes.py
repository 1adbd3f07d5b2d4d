"""Notes of fits, which :func:`log` writes as text: the latest of each span, for the page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from torchkoopman_panels import SCHEMA

from torchkoopman_tensorboard import PLUGIN_NAME
from torchkoopman_tensorboard.reading import LoggedSeries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

TEXT = "text"
"""The plugin of TensorBoard that shows them too."""
NAME = "notes"
_TAG = re.compile(rf"{PLUGIN_NAME}/(.+)/{NAME}")


def plugin_of(tag: str) -> str:
    """The plugin whose data the tag names."""
    return TEXT if _TAG.fullmatch(tag) else PLUGIN_NAME


def notes_in(
    read: Mapping[str, Mapping[str, Iterable[Any]]], series: Iterable[LoggedSeries]
) -> list[LoggedSeries]:
    """The latest notes of every span that has series, each sentence with its step.

    Args:
        read: run → tag → texts, as a data provider reads them.
        series: what else there is.
    """
    spans = {(each.run, each.span) for each in series}
    found = []
    for run, texts in read.items():
        for tag, data in texts.items():
            match = _TAG.fullmatch(tag)
            if match and (run, match[1]) in spans:
                latest = max(data, key=lambda datum: datum.step)
                said = {"notes": [f"At step {latest.step}: {each}" for each in _sentences(latest)]}
                found.append(LoggedSeries(run, tag, match[1], NAME, said, SCHEMA, latest.step))
    return found


def without_numbers(data: Iterable[Any]) -> dict[float, npt.NDArray[np.float64]]:
    """The latest step → no numbers: what the page reads of notes besides their text."""
    return {float(max(datum.step for datum in data)): np.zeros(0)}


def _sentences(datum: Any) -> list[str]:
    texts = np.asarray(datum.numpy, dtype=object).reshape(-1)
    decoded = [
        each.decode(errors="replace") if isinstance(each, bytes) else str(each) for each in texts
    ]
    return [each for text in decoded for each in text.split("\n\n") if each]
