"""The picture of an audit draws differences, each where it is, and sets forgotten classes apart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pytest
import torch

import torchkoopman as tk
from torchkoopman.unlearning.measures import Detection, Membership
from torchkoopman.unlearning.report import Column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection

TEST = {
    "original": {0: 0.9, 1: 0.8, 2: 0.99},
    "unedited swap": {0: 0.91, 1: 0.795, 2: 0.99},
    "edited": {0: 0.9, 1: 0.78, 2: 0.0},
    "retrained": {0: 0.89, 1: 0.8, 2: 0.0},
}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def audit(**accuracies: dict[int, float]) -> tk.results.Audit:
    columns = {
        name: Column(test, test, test[2], 0.8, None, Membership(0.5, 0.5), 3, {})
        for name, test in {**TEST, **accuracies}.items()
    }
    return tk.results.Audit((2,), columns, None, None, tk.Relearning())


def markers(ax: Axes) -> dict[str, PathCollection]:
    dots = [each for each in ax.collections if isinstance(each, PathCollection)]
    return {str(each.get_label()): each for each in dots}


def test_each_network_is_drawn_by_its_differences_from_the_original() -> None:
    _, axes = plt.subplots(1, 2)
    assert audit().plot(axes[1]) is axes[1]
    assert not axes[0].collections
    found = markers(axes[1])
    assert list(found) == ["unedited swap", "edited", "retrained"]
    for name, dots in found.items():
        places: Any = dots.get_offsets()
        expected = [100 * (TEST[name][c] - TEST["original"][c]) for c in range(3)]
        assert places[:, 0].tolist() == pytest.approx(expected)
        assert [round(row) for row in places[:, 1]] == [0, 1, 2], "within the row of its class"
    low, high = axes[1].get_xlim()
    assert low < -99
    assert high >= 1


def test_networks_differ_by_shape_and_equal_values_do_not_hide_each_other() -> None:
    found = list(markers(audit().plot()).values())
    shapes = {tuple(map(tuple, dots.get_paths()[0].vertices.round(3))) for dots in found}
    assert len(shapes) == len(found)
    rows = [torch.as_tensor(dots.get_offsets().data)[2, 1].item() for dots in found]
    assert len(set(rows)) == 3


def test_forgotten_classes_have_a_band_and_a_word() -> None:
    ax = audit().plot()
    (band,) = ax.patches
    extent = band.get_extents().transformed(ax.transData.inverted())
    assert sorted([extent.y0, extent.y1]) == pytest.approx([1.5, 2.5])
    assert [each.get_text() for each in ax.get_yticklabels()] == ["0", "1", "2 (forgotten)"]


def test_detections_are_drawn_where_they_are_and_the_unknown_left_out() -> None:
    whole = audit()
    found = {"start": Detection(0.85, 0.97), "decoded": Detection(0.6, 0.9)}
    columns = {
        name: replace(column, detections=found if name == "edited" else {"start": found["start"]})
        for name, column in whole.columns.items()
    }
    ax = replace(whole, columns=columns).plot(part="detection")
    assert [each.get_text() for each in ax.get_yticklabels()] == [
        "probe at start",
        "neighbours at start",
        "probe at decoded",
        "neighbours at decoded",
    ]
    drawn = markers(ax)
    assert list(drawn) == list(TEST)
    for name, other in markers(whole.plot()).items():
        assert np.array_equal(other.get_edgecolors(), drawn[name].get_edgecolors()), name
    places = torch.as_tensor(np.ma.filled(drawn["edited"].get_offsets(), np.nan))[:, 0]
    assert places.tolist() == pytest.approx([85, 97, 60, 90])
    bare = torch.as_tensor(np.ma.filled(drawn["original"].get_offsets(), np.nan))[:, 0]
    assert bare[:2].tolist() == pytest.approx([85, 97])
    assert bare[2:].isnan().all()


def test_what_there_is_no_picture_of_is_refused() -> None:
    with pytest.raises(ValueError, match="part='loss'; it draws 'accuracy' or 'detection'"):
        audit().plot(part="loss")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="looked into no states; give"):
        audit().plot(part="detection")


def test_any_number_of_baselines_is_drawn() -> None:
    names = {f"baseline {k}": {0: 0.5, 1: 0.5, 2: 0.5} for k in range(9)}
    assert len(markers(audit(**names).plot())) == 12
