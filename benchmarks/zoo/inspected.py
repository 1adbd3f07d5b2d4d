"""``tk.inspect`` on the architectures people have: does it take the layers a person chose?

``python -m benchmarks.zoo.inspected`` prints a line for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torchkoopman as tk
from benchmarks.zoo.comparing import call
from benchmarks.zoo.families import FAMILIES
from benchmarks.zoo.suite import brief, hook_count
from torchkoopman.inspecting.choosing import repeated
from torchkoopman.inspecting.first_pass import first_pass
from torchkoopman.observe.watch import Watch

if TYPE_CHECKING:
    from torch import nn

    from benchmarks.zoo.family import Family

BATCHES, SAMPLES = 6, 24


@dataclass(frozen=True)
class Found:
    """What came of one architecture."""

    layers: tuple[str, ...] = ()
    """Those taken."""
    said: str = ""
    """How they were found, or why nothing was."""
    skipped: int = 0
    """Measures, and layers, that were skipped."""
    chosen: bool = False
    """Whether the layers between which a person swaps are among them."""


def forward(model: nn.Module, batch: Any) -> object:
    """Call a model of the zoo."""
    return call(model, batch["inputs"])


def layers_of(family: Family) -> Found:
    """The layers that are found, without a measure."""
    model, batch = family.model(), {"inputs": family.sample(0, SAMPLES)}
    try:
        chosen = repeated(model, first_pass(Watch(model, "", forward=forward), batch))
    except (TypeError, ValueError) as error:
        return Found(said=str(error))
    ends = {family.start, family.end} <= set(chosen.layers)
    return Found(chosen.layers, chosen.said, len(chosen.skipped), ends)


def inspected(family: Family) -> Found:
    """The same with all measures; the model must be as it was."""
    model = family.model()
    batches = [{"inputs": family.sample(k, SAMPLES)} for k in range(BATCHES)]
    forward(model, batches[0])  # some put on hooks of their own
    before = hook_count(model)
    found = tk.inspect(model, batches, forward=forward, points=40, progress=False)
    assert hook_count(model) == before
    ends = {family.start, family.end} <= set(found.layers)
    return Found(found.layers, found.found, len(found.skipped), ends)


def main() -> None:
    """Print a line for each architecture, and how many have the layers that a person chose."""
    count = there = 0
    for family in FAMILIES:
        if family.missing:
            continue
        try:
            found = inspected(family)
        except (TypeError, ValueError) as error:
            found = Found(said=str(error))
        there += found.chosen
        count += 1
        mark = "" if found.chosen else f" (chosen by hand: {family.start} … {family.end})"
        print(f"{family.name}: {brief(found.said)}; {found.skipped} skipped{mark}")
    print(f"{there} of {count} have the layers chosen by hand among those found")


if __name__ == "__main__":
    main()
