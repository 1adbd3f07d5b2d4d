"""The bench of gated cells: its flows are those that were trained; missed goals are said."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from benchmarks.parts import gated, gated_networks


@pytest.mark.parametrize("cell", [*gated_networks.CELLS, "GRU"])
def test_the_flow_between_pulses_is_the_network_without_input(cell: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = gated_networks.Network(cell, 3, 2).eval()
    inputs = torch.randn(6, 10, 2, generator=torch.Generator().manual_seed(1))
    inputs[3:] = 0
    with torch.no_grad():
        states = network.states(inputs)
    orbit = copy.deepcopy(network).resting().orbit(states[2].double(), 3)
    torch.testing.assert_close(orbit.float(), states[2:])


def run_of(own: float, other: float, stable: int = 8) -> dict[str, Any]:
    def told(error: float) -> dict[str, Any]:
        counts = {"fixed": 9, "slow": 0, "stable": stable, "settled": 1.0}
        return {"error": error, "parameters": 4, "processor seconds": 1.0, "drift": 0.1, **counts}

    cells = {f"{c} {n}": told(1.0) for part, _ in gated.TASKS.values() for c, n in part}
    return {"variance": 0.3, "cells": cells | {"gnODE 2": told(own), "GRU 32": told(other)}}


def test_goals_are_said_to_be_met_or_missed() -> None:
    near = gated.table({"square-0": run_of(0.04, 0.1), "square-1": run_of(0.05, 0.1)})
    assert "it has 0.45 of it: met" in near
    assert "2 seed(s)" in near
    assert "it has 0.60 of it: MISSED" in gated.table({"square-0": run_of(0.06, 0.1)})
    assert "there are [8]: met" in gated.table({"fixed-0": run_of(1, 1)})
    both = {"fixed-0": run_of(1, 1), "fixed-1": run_of(1, 1, stable=9)}
    assert "there are [8, 9]: MISSED" in gated.table(both)
