"""The picture of modes has each mode's entries in a row of its own, the largest first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch import Tensor

import torchkoopman as tk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection, PathCollection


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def modes() -> tk.results.Modes:
    """A pair of conjugates and two real modes, the second of which is the largest."""
    pair = torch.tensor([1 + 2j, -3j, 0.5, 2], dtype=torch.complex128)
    real = torch.tensor([1, 2, -4, 0], dtype=torch.complex128)
    vectors = torch.stack([pair, pair.conj(), real, -real.flip(0)], 1)
    values = torch.tensor([0.5 + 0.1j, 0.5 - 0.1j, 0.9, 0.3], dtype=torch.complex128)
    amplitudes = torch.tensor([2.0, 2.0, 1.0, 9.0], dtype=torch.float64)
    offset, partners = torch.zeros(4, dtype=torch.float64), torch.tensor([1, 0, 2, 3])
    return tk.results.Modes("9", 0.0, values, vectors, offset, True, "", partners, 1.0, amplitudes)


def heights(ax: Axes) -> list[Tensor]:
    """Of the stems, above the base of their row, row by row."""
    stems = [each for each in ax.collections if isinstance(each, LineCollection)]
    ends = [torch.as_tensor(np.stack(each.get_segments())[:, :, 1]) for each in stems]
    return [both[:, 1] - both[:, 0] for both in ends]


def parallel(one: Tensor, other: Tensor) -> bool:
    return bool(torch.cosine_similarity(one.double(), other.double(), dim=0) > 1 - 1e-9)


def test_stems_are_real_parts_the_largest_mode_first_and_conjugates_once() -> None:
    own = modes()
    _, axes = plt.subplots(1, 2)
    assert own.plot(axes[1]) is axes[1]
    assert not axes[0].collections
    drawn = heights(axes[1])
    assert len(drawn) == 3
    for found, k in zip(drawn, (3, 0, 2), strict=True):
        assert parallel(found, own.vectors[:, k].real), k
    names = [each.get_text() for each in axes[1].get_yticklabels()]
    assert [name.split("\n")[0] for name in names] == [
        "λ = +0.3000 +0.0000i",
        "λ = +0.5000 +0.1000i",
        "λ = +0.9000 +0.0000i",
    ]
    assert axes[1].get_title() == "3 of 4 modes at layer 9"


def test_rings_are_imaginary_parts_of_complex_modes_in_the_scale_of_the_stems() -> None:
    own = modes()
    ax = own.plot()
    (rings,) = (each for each in ax.collections if isinstance(each, PathCollection))
    places = torch.as_tensor(rings.get_offsets().data)
    both = torch.cat([heights(ax)[1], places[:, 1] + 1])
    assert parallel(both, torch.cat([own.vectors[:, 0].real, own.vectors[:, 0].imag]))


def test_without_data_the_longest_comes_first_and_so_many_as_asked_for() -> None:
    own = replace(modes(), amplitudes=None)
    (drawn,) = heights(own.plot(modes=1))
    assert parallel(drawn, own.vectors[:, 2].real)


def test_half_of_a_pair_is_drawn_alone() -> None:
    assert len(heights(modes().keep([1, 2]).plot())) == 2
