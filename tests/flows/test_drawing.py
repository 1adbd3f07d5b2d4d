"""Phase portraits show the points, orbits and directions that they are given, where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from torchkoopman.flows import Flow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

mpl.use("Agg")


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def double_well(x: Tensor) -> Tensor:
    """(±1, 0, …) attract, 0 does not."""
    first = x[:, :1]
    return x + 0.2 * torch.cat([first - first**3, -x[:, 1:]], 1)


def starts(width: int) -> Tensor:
    drawn = torch.randn(200, width, generator=torch.Generator().manual_seed(0)).double()
    return drawn * torch.tensor([1.0] + [0.3] * (width - 1)).double()


def marked(ax: plt.Axes) -> dict[str, np.ndarray]:
    known = {each.get_label(): each.get_offsets() for each in ax.collections}
    return {name: np.asarray(known[name]) for name in known if not name.startswith("_")}


def test_in_the_plane_points_stand_at_their_coordinates_by_their_stability() -> None:
    flow = Flow(double_well)
    ax = flow.fixed_points(starts(2), search="newton").plot(flow)
    shown = marked(ax)
    assert np.allclose(sorted(shown["attracts"][:, 0]), [-1, 1], atol=1e-6)
    assert np.allclose(shown["does not attract"], 0, atol=1e-6)
    assert any("streamplot" in repr(p) or len(p.get_paths()) for p in ax.collections)
    assert ax.get_xlabel() == "first coordinate"


def test_slow_points_are_shown_and_are_not_fixed() -> None:
    flow = Flow(lambda x: x + 0.1 * torch.stack([x[:, 0] ** 2 + 1e-3, -x[:, 1]], 1))
    found = flow.fixed_points(starts(2), search="newton")
    assert len(found.points) == 0
    shown = marked(found.plot(flow))
    assert list(shown) == ["slow"]
    assert np.allclose(shown["slow"], 0, atol=1e-2)


@pytest.mark.parametrize("width", [2, 5])
def test_orbits_are_those_of_the_flow(width: int) -> None:
    flow, given = Flow(double_well), starts(width)
    found = flow.fixed_points(given)
    axes = [found.plot(flow), found.plot(flow, orbits=3, steps=40)]
    lines = axes[1].lines
    assert [len(each.lines) for each in axes] == [0, 3]
    assert len(lines[0].get_xdata()) == 41
    ends = np.array([[line.get_xdata()[-1], line.get_ydata()[-1]] for line in lines])
    gaps = ends[:, None] - marked(axes[1])["attracts"]
    assert (np.linalg.norm(gaps, axis=2).min(1) < 0.05).all()


def test_many_numbers_are_seen_along_principal_axes_and_said_so() -> None:
    flow, given = Flow(double_well), starts(5)
    ax = flow.fixed_points(given).plot(flow)
    shown = marked(ax)["attracts"]
    assert np.linalg.norm(shown[0] - shown[1]) == pytest.approx(2, abs=0.05)  # of (±1, 0, …)
    centred = given - given.mean(0)
    share = torch.linalg.svdvals(centred).square()
    share = (share / share.sum())[0].item()
    assert ax.get_xlabel() == f"first principal axis of the starts, {share:.0%} of the variance"


def test_an_arrow_points_where_its_output_grows() -> None:
    flow, given = Flow(double_well), starts(2)
    readout = torch.tensor([[0.0, 3.0], [-1.0, 0.0]]).double()
    ax = flow.fixed_points(given).plot(flow, readout=readout)
    centre = given.mean(0).numpy()
    tips = {text.get_text(): np.array(text.xy) for text in ax.texts if text.get_text()}
    assert list(tips) == ["output 0", "output 1"]
    for number, way in enumerate(([0.0, 1.0], [-1.0, 0.0])):
        step = tips[f"output {number}"] - centre
        assert np.allclose(step / np.linalg.norm(step), way)


def test_one_start_and_no_points_can_be_drawn() -> None:
    flow = Flow(lambda x: x + 1)
    found = flow.fixed_points(torch.ones(1, 4), steps=3)
    assert "principal axis" in found.plot(flow, orbits=1, steps=2).get_xlabel()


@pytest.mark.parametrize(
    ("width", "options", "message"),
    [
        (1, {}, "two numbers or more; these have 1"),
        (2, {"orbits": -1}, "orbits=-1"),
        (2, {"steps": 0}, "steps=0"),
        (2, {"readout": torch.ones(2, 3)}, r"shape \(2, 3\) for states of 2 numbers"),
        (2, {"readout": torch.ones(2)}, r"shape \(2,\) for states"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    width: int, options: dict[str, object], message: str
) -> None:
    flow = Flow(lambda x: 0.5 * x)
    found = flow.fixed_points(torch.ones(3, width))
    with pytest.raises(ValueError, match=message):
        found.plot(flow, **options)
