"""Expressivity: nothing where nothing moves, all where the class holds the trajectory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from torchkoopman.flows import GatedODECell, expressivity

QUICK = {"draws": 2, "steps": 60, "times": 25, "length": 6.0, "progress": False}


class Still(nn.Module):
    """A cell that keeps its state."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(states))

    def forward(self, given: Tensor, state: Tensor) -> Tensor:
        return state + 0 * self.weight


class Clock(nn.Module):
    """A cell whose states are a basis of all trajectories, one coordinate for each time."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.turn = nn.Parameter(torch.zeros(1))

    def forward(self, given: Tensor, state: Tensor) -> Tensor:
        return state.roll(1, 1) + 0 * self.turn


class Made(nn.Module):
    """What a function makes of the state."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, given: Tensor, state: Tensor) -> object:
        return self.function(state)


def gated(states: int) -> nn.Module:
    return GatedODECell(0, states, widths=[32], alpha=0.5)


def test_a_state_that_does_not_move_explains_nothing() -> None:
    told = expressivity(Still, 3, **QUICK)
    assert told.untrained.abs().max() < 1e-6
    assert told.scores.abs().max() < 1e-6
    assert told.ceiling.tolist() == [1.0, 1.0]


def test_states_that_span_all_trajectories_explain_all_before_any_training() -> None:
    told = expressivity(Clock, 25, **QUICK | {"steps": 1})
    assert told.untrained.min() > 0.99


def test_training_explains_more_and_never_more_than_one() -> None:
    told = expressivity(gated, 3, **QUICK | {"steps": 150})
    assert (told.scores > told.untrained + 0.1).all()
    assert told.scores.max() <= 1
    assert told.scores.min() > 0.6


def test_noise_lowers_what_can_be_explained_to_its_share() -> None:
    told = expressivity(Still, 8, noise=1.0, **QUICK | {"times": 400, "steps": 1})
    assert told.ceiling.mean() == pytest.approx(0.5, abs=0.05)


def test_cells_of_torch_take_part_and_global_random_state_stays() -> None:
    before = torch.get_rng_state()
    one = expressivity(lambda n: nn.GRUCell(1, n), 2, **QUICK)
    with torch.no_grad():
        two = expressivity(lambda n: nn.GRUCell(1, n), 2, **QUICK)
    other = expressivity(
        lambda n: nn.GRUCell(1, n), 2, generator=torch.Generator().manual_seed(1), **QUICK
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.scores, two.scores)
    assert not torch.equal(one.scores, other.scores)


def test_the_table_has_the_trivial_the_untrained_and_the_best_there_is() -> None:
    told = expressivity(gated, 2, **QUICK | {"steps": 2})
    lines = str(told).splitlines()
    assert lines[0].endswith("2 random trajectories, 2 dimensions, 25 times")
    assert lines[2].split() == ["the", "mean", "of", "a", "trajectory", "0.0000", "0.0000"]
    assert f"{told.scores.mean():.4f}" in lines[4]
    assert lines[5].endswith("1.0000   1.0000") or lines[5].split()[-2:] == ["1.0000", "1.0000"]


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (gated, {"draws": 0}, "draws=0"),
        (gated, {"times": 1}, "times=1"),
        (gated, {"length": 0.0}, "length=0.0"),
        (gated, {"noise": -1.0}, "noise=-1.0"),
        (
            lambda n: Made(lambda state: state[:, :1]),
            {},
            r"Made takes a state \(1, 2\) and gives \(1,",
        ),
        (lambda n: Made(lambda state: (state, state)), {}, "gives tuple"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    make: object, options: dict[str, object], message: str
) -> None:
    given = {"states": 2} | QUICK | options
    with pytest.raises(ValueError, match=message):
        expressivity(make, given.pop("states"), **given)
