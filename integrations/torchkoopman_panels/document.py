"""Series gathered by run, span and step, as a page reads them: an index, and a block for each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torchkoopman_panels.packing import pack
from torchkoopman_panels.schema import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy as np
    import numpy.typing as npt

    from torchkoopman_panels.packing import Bits
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
    warnings: list[str] = field(default_factory=list)
    """Sentences that the page begins with, such as on what could not be read."""

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
            "labels": {f"{step:.15g}": label for step, label in self.labels.items()},
            "series": [
                {"key": str(k), "run": run, "span": span, "name": name, "about": json.loads(about)}
                for k, (run, span, name, about) in enumerate(self.arrays)
            ],
            "warnings": list(self.warnings),
        }

    def blocks(
        self, bits: Mapping[str, Bits] | None = None, every: int = 1
    ) -> Iterator[tuple[str, bytes]]:
        """Key of the index → bytes, see ``packing.py``.

        Args:
            bits: name of a series → binary digits that its values keep.
            every: of a run's steps, counted over all its series, this one in so many is taken, and
                the last.
        """
        bits = {} if bits is None else bits
        kept = {run: self._every(run, every) for run, *_ in self.arrays}
        for k, ((run, _, name, _), steps) in enumerate(self.arrays.items()):
            some = {step: array for step, array in steps.items() if step in kept[run]}
            some = some or {max(steps): steps[max(steps)]}
            yield str(k), pack(some, bits.get(name), len(steps))

    def _every(self, run: str, every: int) -> set[float]:
        steps = sorted(
            {step for key, each in self.arrays.items() if key[0] == run for step in each}
        )
        return {*steps[::every], *steps[-1:]}
