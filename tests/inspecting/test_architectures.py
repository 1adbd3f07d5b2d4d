"""The layers that are found in architectures people have, against those a person chose to swap."""

import pytest

from benchmarks.zoo.families import HANDWRITTEN
from benchmarks.zoo.family import Family
from benchmarks.zoo.inspected import inspected, layers_of

OTHERS = {
    "ResNet, downsampling": ("blocks.1", "blocks.2", "blocks.3"),  # one resolution
    "U-Net, across the skip": ("deep.0", "deep.1", "deep.2", "deep.3"),
    "MLP, ReLU in place": ("1", "3", "5", "7"),  # after the activation
}
"""Where a person chose a span across what is no run of blocks."""
NOTHING = {"hidden channel"}
"""Blocks that pass nothing on."""


@pytest.mark.parametrize("family", HANDWRITTEN, ids=lambda family: family.name)
def test_layers_that_a_person_chose_are_found(family: Family) -> None:
    found = layers_of(family)
    if family.name in NOTHING:
        assert "no blocks that repeat" in found.said
    elif family.name in OTHERS:
        assert found.layers == OTHERS[family.name]
    else:
        assert found.chosen, found.said


def test_a_whole_inspection_takes_the_same_layers() -> None:
    family = next(each for each in HANDWRITTEN if each.name == "one module, four calls")
    found = inspected(family)
    assert (
        found.layers == layers_of(family).layers == ("stem", *(f"blocks.0#{k}" for k in range(4)))
    )
    assert found.skipped == 0
