"""Series gathered by run, span and step, as a page reads them: an index, and a block for each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torchkoopman_panels.packing import pack
from torchkoopman_panels.schema import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    import numpy.typing as npt

    from torchkoopman_panels.schema import Series

Key = tuple[str, str, str, str]
"""Run, span, name of the series, and what it says about itself, as JSON."""


@dataclass
class Document:
    """What one page shows.

    Example:
        >>> import numpy as np
        >>> from torchkoopman_panels import Document, Series
        >>> document = Document("two steps")
        >>> for step in (0, 10):
        ...     document.add("run", "1-9", step, [Series("singular_values", np.ones(3))])
        >>> [entry["name"] for entry in document.index()["series"]]
        ['singular_values']
    """

    title: str = ""
    axis: str = "step"
    """What a step is: ``"step"`` of a training, or a ``"layer"``."""
    labels: dict[float, str] = field(default_factory=dict)
    """Names of steps, where they have any, such as those of layers."""
    arrays: dict[Key, dict[float, npt.NDArray[np.float64]]] = field(default_factory=dict)

    def add(self, run: str, span: str, step: float, series: Iterable[Series]) -> None:
        """Take the series of one step; one that was given at this step before is replaced."""
        for each in series:
            key = (run, span, each.name, json.dumps(dict(each.about), sort_keys=True))
            self.arrays.setdefault(key, {})[float(step)] = each.values

    def index(self) -> dict[str, Any]:
        """JSON-able: what there is, in the order in which it came; ``key`` names its block."""
        return {
            "schema": SCHEMA,
            "title": self.title,
            "axis": self.axis,
            "labels": {f"{step:g}": label for step, label in self.labels.items()},
            "series": [
                {"key": str(k), "run": run, "span": span, "name": name, "about": json.loads(about)}
                for k, (run, span, name, about) in enumerate(self.arrays)
            ],
        }

    def blocks(self, bits: int | None = None) -> Iterator[tuple[str, bytes]]:
        """Key of the index → bytes, see :func:`pack`."""
        for k, ((_, _, name, _), steps) in enumerate(self.arrays.items()):
            yield str(k), pack(name, steps, bits)
