"""Plots as functions: the pictures of the results' own methods, on the axes that are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt

import torchkoopman as tk
from tests.showing.test_series import audit, topology
from tests.systems import normal

if TYPE_CHECKING:
    from collections.abc import Iterator

mpl.use("Agg")


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def surrogate() -> tk.Surrogate:
    x = normal(300, 3)
    named = {"a": x[:, None], "b": (0.9 * x)[:, None]}
    return tk.DMDFitter().update(tk.Trajectory(named)).surrogate


def more(name: str) -> list[Any]:
    """What a plot takes beside its result."""
    return [tk.flows.Flow(lambda x: 0.5 * x)] if name == "plot_phase_portrait" else []


def results() -> dict[str, Any]:
    fit = surrogate()
    return {
        "plot_spectrum": fit.spectrum(),
        "plot_modes": fit.modes(),
        "plot_tracks": tk.follow([fit.spectrum(), fit.spectrum()]),
        "plot_pseudospectrum": fit.pseudospectrum(points=9),
        "plot_betti": topology(),
        "plot_forgetting": audit(),
        "plot_phase_portrait": more("plot_phase_portrait")[0].fixed_points(normal(5, 2)),
    }


@pytest.mark.parametrize("name", results())
def test_a_plot_is_drawn_on_the_axes_given_and_gives_them_back(name: str) -> None:
    result, ax = results()[name], plt.subplots()[1]
    assert getattr(tk.plots, name)(result, *more(name), ax) is ax
    assert ax.has_data()
    own = result.plot(*more(name), plt.subplots()[1])
    assert own.get_xlabel() == ax.get_xlabel()
    assert own.get_title() == ax.get_title()


@pytest.mark.parametrize("name", tk.plots.__all__)
def test_what_a_plot_cannot_draw_is_named_with_what_gives_it(name: str) -> None:
    with pytest.raises(TypeError, match=r"draws what .*\(.*\) gives; it got a Surrogate"):
        getattr(tk.plots, name)(surrogate(), *more(name))


def test_every_plot_has_its_function() -> None:
    assert set(results()) | {"plot_trajectories", "plot_audit"} == set(tk.plots.__all__)
