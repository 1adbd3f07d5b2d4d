"""The bench of more gated cells: what is compared is equal, and what is lost or missed is said."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import pytest
import torch
from matplotlib import pyplot as plt

from benchmarks import cells_figure
from benchmarks.parts import cells
from benchmarks.parts.gated_networks import LOOKS, Network, Training, drawn, error


def trials(count: int = 20) -> Any:
    return cells.tk.flows.flip_flops(count, times=20)


def test_cells_of_equal_size_have_about_the_parameters_of_the_gated_neural_ode() -> None:
    wanted = Network("gnODE", 6, 3, cells.DEEP).size
    for cell, states in cells.EQUAL:
        assert abs(Network(cell, states, 3, cells.DEEP).size / wanted - 1) < 0.02


@pytest.mark.parametrize("cell", cells.KINDS)
def test_followers_have_the_width_that_is_asked_for(cell: str) -> None:
    follower = cells.follower(cell, 7, 3)
    if cell in ("nODE", "gnODE"):
        assert follower.target[0].out_features == 7
    given = torch.zeros(1, getattr(follower, "inputs", 1))
    assert follower(given, torch.zeros(1, 3)).shape == (1, 3)


def test_one_seed_gives_one_network_and_its_course() -> None:
    with torch.random.fork_rng():
        given = trials()
        (one, course), (two, again) = (
            drawn("gnODE", 2, 3, given, Training(1e-2, 45, cosine=True)) for _ in range(2)
        )
        slow, _ = drawn("gnODE", 2, 3, given, Training(1e-2, 45))
        decayed, _ = drawn("gnODE", 2, 3, given, Training(1e-2, 45, decay=5.0, cosine=True))
    assert course == again
    assert len(course) == LOOKS
    assert course[-1][0] < course[0][0]
    assert error(one, given) == error(two, given) != error(slow, given)
    size = [sum(p.square().sum() for p in net.core.parameters()) for net in (one, decayed)]
    assert size[1] < 0.9 * size[0]


def test_a_training_that_is_lost_ends_and_its_error_is_infinite() -> None:
    with torch.random.fork_rng():
        network, course = drawn("nODE", 2, 3, trials(), Training(1e6, 60))
    assert error(network, trials()) == math.inf
    assert not math.isfinite(course[-1][0])


def told(error: float) -> dict[str, Any]:
    known = {"error": error, "rate": 0.1, "parameters": 4, "processor seconds": 1.0, "drift": 0.1}
    return known | {"near one": 2.0, "course": [[0.3, 1.0], [0.1, 0.5]]}


def test_goals_and_what_is_lost_are_said() -> None:
    def run_of(own: float) -> dict[str, Any]:
        return {"variance": 0.3, "cells": {"gnODE 2": told(own), "GRU 32": told(0.1)}}

    assert "it has 0.50 of it (0.40 to 0.60 by seed): met" in cells.table(
        {"bar-1": run_of(0.04), "bar-2": run_of(0.06)}
    )
    assert "it has 0.60 of it (0.60 to 0.60 by seed): MISSED" in cells.table(
        {"bar-1": run_of(0.06)}
    )
    found = {"RNN, critical, 0.1": {"error": 0.1, "begins": 0.4}}
    lost = {"RNN, critical, 0.1": {"error": math.inf, "begins": 1e9}}
    text = cells.table(
        {f"grid-{k}": {"variance": 0.3, "grid": g} for k, g in enumerate((found, lost))}
    )
    assert "| RNN  | critical | 0.1000, 1 lost | 5e+08" in text


def test_rows_stand_by_number_of_states_in_whatever_order_results_are_read() -> None:
    names = [f"{cell} {n}" for cell, n in cells.THREE]
    assert cells.shown.ordered(sorted(names)) == names


def test_what_is_kept_gives_the_same_table() -> None:
    run = {"variance": 0.3, "cells": {"gnODE 2": told(0.04), "GRU 32": told(0.1)}}
    run["cells"]["GRU 32"]["course"] = [[1 / 3, 2 / 3]] * 2
    short = cells.kept(run)
    assert short["cells"]["GRU 32"]["course"][0] == [0.3333, 0.6667]
    assert cells.table({"bar-1": short}) == cells.table({"bar-1": run})
    assert cells.kept({"grid": {}}) == {"grid": {}}


def test_the_figure_has_a_line_for_each_cell_in_both_rows() -> None:
    names = [f"{cell} {n}" for cell, n in cells.THREE]
    results = {
        "bar-1": {"cells": {"gnODE 2": told(0.1), "GRU 32": told(0.1)}},
        "three-1": {"cells": {name: told(0.1) for name in names}},
    }
    figure = cells_figure.drawn(results)
    shown = [[line.get_label() for line in place.lines] for place in figure.axes]
    assert sorted(chain.from_iterable(shown[:4])) == sorted(["gnODE 2", "GRU 32", *names])
    assert [len(each) for each in shown] == [2, 5, 5, 3] * 2
    assert list(figure.axes[0].lines[0].get_ydata()) == [0.3, 0.1]
    assert list(figure.axes[4].lines[0].get_ydata()) == [1.0, 0.5]
    plt.close(figure)
